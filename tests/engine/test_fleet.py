"""Several processes: every row once, in order, with the bits of one; and what their deaths cost."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.engine.ensembles import make_ensemble
from tests.engine.list_sink import ListSink
from tests.engine.poison import Accidents
from trtdet.engine import fleet as module
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import open_bundle
from trtdet.engine.decode import Limits
from trtdet.engine.ensemble import open_any
from trtdet.engine.fleet import open_fleet
from trtdet.engine.fleet_worker import WorkerOptions
from trtdet.engine.runner import open_local
from trtdet.engine.table import Row
from trtdet.errors import BackendError, BundleError

HOW = {"batch": 2, "decode_threads": 1, "limits": Limits()}


def options(bundle: Path, count: int = 2, **how) -> list[WorkerOptions]:
    how = {**HOW, **how}
    return [WorkerOptions(f"process {each}", "openvino", bundle, how) for each in range(count)]


def run(runner, names, resolve, stopping=lambda: False):
    sink, heard = ListSink(), []
    rows = (Row(index, str(name)) for index, name in enumerate(names))
    summary = runner.score(rows, resolve, sink, on_rows=heard.append, stopping=stopping)
    assert (summary.rows, summary.failures) == (len(sink.rows), sink.failures)
    assert sum(heard) == summary.rows
    return sink.rows


@pytest.fixture(scope="module")
def accidents(tmp_path_factory) -> Accidents:
    return Accidents(tmp_path_factory.mktemp("marks"))


@pytest.fixture(scope="module")
def fleet(small_bundle):
    with open_fleet(options(small_bundle)) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(small_bundle, pictures, accidents):
    """What one process gives for each picture."""
    backend, _ = choose_backend("openvino")
    with open_local(backend, open_bundle(small_bundle), **HOW) as runner:
        return dict(zip(pictures, run(runner, pictures, accidents), strict=True))


def test_rows_come_in_order_with_the_bits_of_one_process(fleet, pictures, alone, accidents):
    names = [*pictures, "missing.png", *pictures[::-1]] * 20 + [pictures[0]]
    missing = ("missing.png", None, "file not found")
    rows = run(fleet, names, accidents)
    assert rows == [alone.get(name, missing) for name in names]
    assert run(fleet, [], accidents) == []
    assert run(fleet, pictures[:1], accidents) == [alone[pictures[0]]]


def test_one_slow_image_does_not_hold_up_the_others(fleet, pictures, alone, accidents):
    slow = pictures[0].with_name(f"slow {pictures[0].name}")
    names = [slow, *pictures[1:] * 50]
    rows = run(fleet, names, accidents)
    assert rows[0][1] == alone[pictures[0]][1]
    assert rows[1:] == [alone[name] for name in names[1:]]


def test_a_process_that_is_killed_costs_no_row(fleet, pictures, alone, accidents):
    names = pictures * 100
    victim = fleet._processes[1]._process

    def kill() -> None:
        time.sleep(0.3)
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = run(fleet, names, accidents)
    killer.join()
    victim.join(10)
    assert victim.exitcode == -signal.SIGKILL
    assert rows == [alone[name] for name in names]


def test_a_row_that_kills_its_process_is_a_row_that_failed(fleet, pictures, alone, accidents):
    names = [*pictures * 3, "poison", *pictures * 3]
    rows = run(fleet, names, accidents)
    name, logits, reason = rows.pop(36)
    assert (name, logits) == ("poison", None)
    assert reason is not None
    assert "died (signal 9), and again, while it scored this row alone" in reason
    assert rows == [alone[each] for each in names if each != "poison"]


def test_a_row_that_kills_once_has_its_score(fleet, pictures, alone, accidents):
    once = pictures[3].with_name(f"once {pictures[3].name}")
    names = [*pictures * 2, once, *pictures * 2]
    rows = run(fleet, names, accidents)
    assert rows.pop(24)[1] == alone[pictures[3]][1]
    assert rows == [alone[each] for each in pictures * 4]


def test_it_stops_when_it_is_asked_to(fleet, pictures, alone, accidents):
    asked = iter([False] * 3)
    rows = run(fleet, pictures * 500, accidents, lambda: next(asked, True))
    assert 0 < len(rows) < 12 * 500
    assert rows == [alone[name] for name in (pictures * 500)[: len(rows)]]


def test_memory_is_bounded_while_an_old_row_waits(small_bundle, pictures, accidents, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 1)
    slow = pictures[0].with_name(f"slow {pictures[0].name}")
    taken = []
    names = [slow, *pictures * 100]
    rows = (taken.append(index) or Row(index, str(name)) for index, name in enumerate(names))
    most = []

    class Watching(ListSink):
        def write(self, *row):
            most.append(len(taken) - len(self.rows))
            super().write(*row)

    with open_fleet(options(small_bundle)) as fleet:  # of its own: nobody is starting
        fleet.score(
            rows, accidents, Watching(), on_rows=lambda _count: None, stopping=lambda: False
        )
        assert max(most) <= 2 * fleet.in_flight + fleet.batch


def test_what_does_not_open_is_said_at_once(small_bundle, tmp_path):
    with pytest.raises(BundleError, match="not a bundle"), open_fleet(options(tmp_path)):
        pass
    different = options(small_bundle, 1) + options(small_bundle, 1, batch=3)
    with pytest.raises(BackendError, match="in batches of 3, process 0"), open_fleet(different):
        pass


def test_an_engine_that_cannot_be_opened_again_is_given_up(
    small_bundle, tmp_path, pictures, alone, accidents
):
    copy = shutil.copytree(small_bundle, tmp_path / "bundle")
    workers = [options(copy, 1)[0], options(small_bundle, 1)[0]]
    with open_fleet(workers) as opened:
        shutil.rmtree(copy)
        os.kill(opened._processes[0]._process.pid, signal.SIGKILL)
        names = pictures * 5
        assert run(opened, names, accidents) == [alone[name] for name in names]
        assert [process.given_up for process in opened._processes] == [True, False]


def test_when_none_is_left_the_run_ends_with_the_reason(
    small_bundle, tmp_path, pictures, accidents
):
    copy = shutil.copytree(small_bundle, tmp_path / "bundle")
    with open_fleet(options(copy, 1)) as opened:
        shutil.rmtree(copy)
        os.kill(opened._processes[0]._process.pid, signal.SIGKILL)
        with pytest.raises(BundleError, match="not a bundle"):
            run(opened, pictures, accidents)


def test_every_process_leaves_the_same_out(small_bundle, tmp_path, pictures, accidents):
    folder = make_ensemble(tmp_path / "together", small_bundle)
    backend, _ = choose_backend("openvino")
    with open_local(backend, open_any(folder), **HOW) as runner:
        for reduction in runner.reductions()[:1]:
            runner.reduce(reduction)
        expected = run(runner, pictures, accidents)
    with open_fleet(options(folder)) as opened:
        every = run(opened, pictures, accidents)
        assert opened.reductions()[0].says.startswith("member ")
        opened.reduce(reduction)
        assert run(opened, pictures * 10, accidents) == expected * 10 != every * 10
        os.kill(opened._processes[1]._process.pid, signal.SIGKILL)
        assert run(opened, pictures * 10, accidents) == expected * 10  # the new one, too
