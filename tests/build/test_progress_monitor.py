"""What TensorRT-RTX's builder reports, and how it is stopped: real builds."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.build.plan_graphs import write_graph
from trtdet.build.compile import compile_plan
from trtdet.build.progress_monitor import Phase, Progress, lines_of, run_cancellable

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed", exc_type=ImportError
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("graph") / "model.onnx")


def test_phases_nest_and_end(graph: Path) -> None:
    phases: list[Phase] = []
    compile_plan(graph, target="sm_86", batch=1, on_phase=phases.append)
    first, last = phases[0], phases[-1]
    assert (first.depth, first.done, first.over) == (0, 0, False)
    assert (last.name, last.over) == (first.name, True)
    assert max(phase.depth for phase in phases) >= 2
    started = [phase.name for phase in phases if phase.done == 0 and not phase.over]
    assert len(set(started)) > 5
    running: set[str] = set()
    for phase in phases:
        assert 0 <= phase.done <= phase.steps
        (running.discard if phase.over else running.add)(phase.name)
    assert not running


def test_lines_come_now_and_then() -> None:
    lines: list[str] = []
    every, never = lines_of(lines.append, every_s=0), lines_of(lines.append)
    for report in (every, never):
        report(Phase("Building engine", 0, 0, 6))
        report(Phase("Timing graph nodes", 1, 3, 145))
        report(Phase("Timing graph nodes", 1, 145, 145, over=True))
    assert lines == ["Building engine, step 0 of 6", "Timing graph nodes, step 3 of 145"]


def test_a_log_has_lines_of_a_long_build(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtdet.build.progress_monitor.lines_of.__defaults__", (0.0,))
    lines: list[str] = []
    compile_plan(graph, target="sm_86", batch=1, on_progress=lines.append)
    assert any(line.startswith("sm_86: Building engine, step ") for line in lines)
    assert all(line.startswith("sm_86: ") for line in lines)


@pytest.fixture(scope="module")
def slow_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("graph") / "slow.onnx", layers=300)


def test_an_interrupt_ends_the_build(slow_graph: Path) -> None:
    """Ctrl-C while TensorRT works: it stops with a step of its own, and nothing is returned."""
    phases: list[Phase] = []
    lines: list[str] = []

    def interrupt_first(phase: Phase) -> None:
        if not phases:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # the main thread hears it
        phases.append(phase)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        compile_plan(
            slow_graph,
            target="sm_86",
            batch=1,
            on_progress=lines.append,
            on_phase=interrupt_first,
        )
    assert lines[-1] == "sm_86: interrupted: it ends with this step, or at once with another Ctrl-C"
    # It was in the first phase of all, and went no further than to leave it.
    assert {phase.depth for phase in phases} <= {0, 1}
    assert phases[-1].over
    assert phases[-1].done < phases[-1].steps
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reporter_that_fails_ends_the_build_with_its_own_error(slow_graph: Path) -> None:
    def fail(_phase: Phase) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError, match="the terminal is gone"):
        compile_plan(slow_graph, target="sm_86", batch=1, on_phase=fail)


def test_the_next_build_is_none_the_worse(graph: Path, slow_graph: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        compile_plan(slow_graph, target="sm_86", batch=1, on_phase=lambda _phase: 1 / 0)
    assert compile_plan(graph, target="sm_86", batch=1).data


def test_another_thread_than_the_first_can_compile(graph: Path) -> None:
    sizes: list[int] = []
    thread = threading.Thread(
        target=lambda: sizes.append(len(compile_plan(graph, target="sm_86", batch=1).data))
    )
    thread.start()
    thread.join(timeout=60)
    assert sizes[0] > 10_000


def test_a_result_that_came_after_the_interrupt_is_dropped() -> None:
    progress, ended = Progress(lambda _phase: None), []

    def build() -> int:
        time.sleep(0.1)  # the main thread waits
        os.kill(os.getpid(), signal.SIGINT)
        assert progress.cancelled.wait(timeout=10)
        ended.append(True)
        return 1

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(build, progress, lambda _line: None)
    assert ended == [True]  # it is waited for
