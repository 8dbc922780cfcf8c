"""A run that has to be through in time: its rate, where that leads, and what is left out for it.

The rate is measured from the first rows that were written. Where it will not do, what is optional
goes, in the order of `trtdet.engine.reductions`, and the rate is measured anew. Before time is up
no more rows are begun, so that those in flight, and the file itself, are finished by then.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trtdet.engine.pipeline import Summary
from trtdet.engine.runner import Resolve, Runner
from trtdet.engine.sink import Sink
from trtdet.engine.steady import SteadyRate
from trtdet.engine.table import Row

NOT_REACHED = "not reached before the deadline"

MEASURED_S = 3.0  # of a rate that something may be decided on
# A rate of the first seconds is a rough one. Until this share of the time that is left was
# measured, the run has to be late by a margin.
SURE_AFTER, MARGIN = 0.02, 0.1

# What the end takes: a line for each row that was not reached, and bringing the files to the disk.
ROW_S, END_S = 10e-6, 1.0


@dataclass(frozen=True)
class LeftOut:
    """Something that was left out, from one row on."""

    what: str
    from_row: int  # of the rows that this run scored


@dataclass(frozen=True)
class Deadline:
    """When a run's output has to be there; in seconds of `time.monotonic()`."""

    at: float
    rows: int  # of the whole table

    @property
    def score_until(self) -> float:
        """When the last rows in flight have to be written."""
        return self.at - (END_S + ROW_S * self.rows)

    @property
    def write_at(self) -> float:
        """When the output is written with what there is, whatever still runs."""
        return self.at - (END_S + ROW_S * self.rows) / 2


class Pace:
    """The rate of a run, and where it leads. `in_flight` rows are begun and not yet written."""

    def __init__(self, until: float, rows: int, in_flight: int, clock: Callable[[], float]):
        self._until, self._left, self._in_flight, self._clock = until, rows, in_flight, clock
        self._first: float | None = None  # when the first rows were written
        self._last = 0.0
        self._written, self._at_first, self._steady = 0, 0, SteadyRate()

    def heard(self, rows: int) -> None:
        """So many rows were just written."""
        self._left -= rows
        self._last = self._clock()
        if self._first is None:
            self._first, self._at_first = self._last, rows
        self._written += rows
        self._steady.add(self._last, self._written)

    @property
    def rate(self) -> float | None:
        """Rows per second; None before it can be told.

        Of the line, which bunches of rows do not mislead, and the mean, which sees sooner that a
        machine has become slower, the smaller.
        """
        steady = self._steady.per_s
        if steady is None or self._first is None:
            return None
        return min(steady, (self._written - self._at_first) / (self._last - self._first))

    def time_is_up(self) -> bool:
        """Whether rows that are begun now might not be written in time."""
        rate = self.rate
        return self._clock() + (self._in_flight / rate if rate else 0.0) >= self._until

    def will_not_do(self) -> bool:
        """Whether the rows that are left take longer than there is time, as far as can be told."""
        rate, measured = self.rate, self._last - (self._first or 0.0)
        if rate is None or measured < MEASURED_S:
            return False
        time_left = self._until - self._last
        sure = measured >= SURE_AFTER * time_left
        return self._left / rate > time_left * (1.0 if sure else 1.0 + MARGIN)


def score_in_time(
    rows: Iterator[Row],
    count: int,
    resolve: Resolve,
    runner: Runner,
    sink: Sink,
    *,
    until: float = math.inf,
    on_rows: Callable[[int], None],
    on_less: Callable[[str], None],
    stopping: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Summary, list[LeftOut]]:
    """Score the `count` rows before `clock()` says `until`; what is not reached stays in `rows`.

    `on_less` hears of each thing that is left out.
    """
    optional = runner.reductions() if until < math.inf else []
    left_out, total = list[LeftOut](), Summary(0, 0, 0.0)
    while True:
        pace = Pace(until, count - total.rows, runner.in_flight, clock)

        def written(number: int, pace: Pace = pace) -> None:
            pace.heard(number)
            on_rows(number)

        def enough(pace: Pace = pace) -> bool:
            return stopping() or pace.time_is_up() or (bool(optional) and pace.will_not_do())

        total += runner.score(rows, resolve, sink, on_rows=written, stopping=enough)
        if not optional or total.rows == count or stopping() or pace.time_is_up():
            return total, left_out
        less = optional.pop(0)
        on_less(less.says)
        left_out.append(LeftOut(less.says, total.rows))
        runner.reduce(less)


def write_unreached(sink: Sink, rows: Iterable[Row]) -> int:
    """A line for every row that is left, without a score. Returns how many."""
    count = 0
    for row in rows:
        sink.write(row.filename, None, NOT_REACHED)
        count += 1
    return count


@contextmanager
def watch(at: float | None, on_late: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Unless it is called off by `at`, `on_late` runs in a thread and ends the process.

    What it returns is the exit code. For what cannot be asked to stop: a compiler, a driver, a disk
    that does not answer. None: never. The block gets what calls it off, as its own end does.
    """
    over = threading.Event()
    if at is None:
        yield over.set
        return

    def wait() -> None:
        if not over.wait(max(0.0, at - time.monotonic())):
            code = 1
            try:
                code = on_late()
            finally:
                os._exit(code)

    threading.Thread(target=wait, name="deadline", daemon=True).start()
    try:
        yield over.set
    finally:
        over.set()
