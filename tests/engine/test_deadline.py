"""A run in time: what it leaves out, when it stops, and what is there when nothing answers."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest

from trtdet.engine.deadline import Deadline, Pace, score_in_time, write_unreached
from trtdet.engine.pipeline import Summary
from trtdet.engine.reductions import Reduction
from trtdet.engine.table import Row


class Clock:
    """Time that passes where the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ListSink:
    failures = 0

    def __init__(self) -> None:
        self.rows: list[tuple[str, str | None]] = []

    def write(self, filename, logits, reason):
        self.rows.append((filename, reason))


class Machine:
    """A runner of known speed: `rates` rows a second, one for each thing that was left out."""

    name, batch, in_flight = "machine", 4, 8

    def __init__(self, clock: Clock, *rates: float):
        self._clock, self._rates = clock, list(rates)
        self.left_out: list[str] = []

    def reductions(self):
        return [
            Reduction("member", str(each), f"member {each}") for each in range(len(self._rates) - 1)
        ]

    def reduce(self, reduction) -> None:
        self.left_out.append(reduction.bundle)
        self._rates.pop(0)
        self._clock.now += 1.0

    def score(self, rows, resolve, sink, *, on_rows, stopping):
        count = 0
        flying = list(itertools.islice(rows, self.in_flight))  # begun before the first is written
        while flying:
            batch, flying = flying[: self.batch], flying[self.batch :]
            self._clock.now += self.batch / self._rates[0]
            for row in batch:
                sink.write(row.filename, [0.0], None)
            count += len(batch)
            on_rows(len(batch))
            if not stopping():
                flying += itertools.islice(rows, self.batch)
        return Summary(count, 0, 1.0)


def run(clock, machine, count, until, stopping=lambda: False):
    sink, said = ListSink(), []
    rows = iter([Row(index, str(index)) for index in range(count)])
    summary, left_out = score_in_time(
        rows, count, None, machine, sink,
        until=until, on_rows=lambda _count: None, on_less=said.append, stopping=stopping,
        clock=clock,
    )  # fmt: skip
    assert [each.what for each in left_out] == said
    assert summary.rows == len(sink.rows)
    assert [name for name, _ in sink.rows] == [str(index) for index in range(summary.rows)]
    return summary.rows, left_out, rows


def test_what_has_the_time_is_scored_as_it_is():
    clock = Clock()
    machine = Machine(clock, 100.0, 1000.0)
    assert run(clock, machine, 5000, clock.now + 60)[:2] == (5000, [])


def test_without_a_deadline_nothing_is_measured():
    clock = Clock()
    machine = Machine(clock, 1.0, 1000.0)
    machine.reductions = None
    assert run(clock, machine, 500, math.inf)[:2] == (500, [])


def test_optional_work_goes_in_order_until_the_time_will_do():
    clock = Clock()
    machine = Machine(clock, 20.0, 30.0, 200.0, 1000.0)
    rows, left_out, _ = run(clock, machine, 5000, clock.now + 60)
    assert (rows, machine.left_out) == (5000, ["0", "1"])  # and not the third
    assert clock.now < 160
    first, second = left_out
    assert 60 <= first.from_row < 120 < second.from_row < 260  # three seconds of each


def test_rows_that_are_not_reached_stay():
    clock = Clock()
    machine = Machine(clock, 20.0, 30.0)
    rows, _, left = run(clock, machine, 5000, clock.now + 60)
    assert machine.left_out == ["0"]
    assert 30 * 50 < rows < 5000
    assert clock.now <= 160  # those in flight, too
    assert 160 - clock.now < 2 * machine.in_flight / 30  # and the time was used
    sink = ListSink()
    assert write_unreached(sink, left) == 5000 - rows
    assert sink.rows == [
        (str(index), "not reached before the deadline") for index in range(rows, 5000)
    ]


def test_a_signal_ends_it_without_leaving_anything_out():
    clock = Clock()
    machine = Machine(clock, 20.0, 30.0)
    stop = clock.now + 10
    rows, left_out, _ = run(clock, machine, 5000, clock.now + 6000, lambda: clock.now > stop)
    assert left_out == []
    assert 200 <= rows < 220


def test_a_rough_rate_has_to_be_late_by_a_margin():
    for slower, late in ((0.95, False), (0.85, True)):
        clock = Clock()
        pace = Pace(clock.now + 1000, 100_000, 8, clock)
        for _ in range(40):
            clock.now += 0.1
            pace.heard(round(10 * slower))
        assert pace.rate == pytest.approx(100 * slower, rel=0.1)
        assert pace.will_not_do() is late, slower


def test_streams_that_end_together_are_not_taken_for_faster_ones():
    clock = Clock()
    pace = Pace(clock.now + 1000, 100_000, 8, clock)
    for _ in range(3):
        clock.now += 1.0
        pace.heard(4)
        pace.heard(4)
    assert pace.rate == pytest.approx(8.0)


def test_nothing_is_decided_on_the_first_rows():
    clock = Clock()
    pace = Pace(clock.now + 10, 1000, 8, clock)
    assert not pace.will_not_do()
    for _ in range(3):  # one row a second: hopeless, but two seconds are not enough to say so
        clock.now += 1.0
        pace.heard(1)
        assert not pace.will_not_do()
    clock.now += 1.0
    pace.heard(1)
    assert pace.will_not_do()


def test_a_deadline_leaves_time_to_write_what_was_not_reached():
    small, large = Deadline(1000.0, 100), Deadline(1000.0, 1_000_000)
    assert 998.9 < small.score_until < small.write_at < 1000.0
    assert 985.0 < large.score_until < large.write_at < 995.0


def test_what_does_not_answer_is_ended():
    code = (
        "import time\n"
        "from trtdet.engine.deadline import watch\n"
        "with watch(time.monotonic() + 0.3, lambda: print('late', flush=True) or 3):\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (3, "late\n", "")


@pytest.mark.parametrize("how", ["call off", "leave", "never"])
def test_what_is_in_time_is_not(how):
    at = "None" if how == "never" else "time.monotonic() + 0.3"
    body = "off(); time.sleep(0.6)" if how == "call off" else "pass"
    code = (
        "import time\n"
        "from trtdet.engine.deadline import watch\n"
        f"with watch({at}, lambda: 3) as off:\n"
        f"    {body}\n"
        "time.sleep(0.6)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
