"""What TensorRT's builder is doing, while it does it, and how it is told to stop.

TensorRT reports phases, one within the other, each of a number of steps, from threads of its own.
After each step it asks whether to go on: that is the only way to end a build early. An exception
in its callbacks would be lost, so it is kept, ends the build, and is raised afterwards.
"""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

# A build of minutes leaves a log that can be read, a build of seconds none.
LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class Phase:
    """One phase of a build, as far as it has come."""

    name: str  # TensorRT's own, for instance "Timing graph nodes"; unique among those that run
    depth: int  # 0 for the whole build
    done: int
    steps: int
    over: bool = False


OnPhase = Callable[[Phase], None]
OnLine = Callable[[str], None]


class Progress:
    """The phases that run, told to `on_phase`, and the flag that ends the build."""

    def __init__(self, on_phase: OnPhase):
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self._on_phase = on_phase
        self._running: dict[str, Phase] = {}
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        outer = self._running.get(parent or "")
        self._tell(Phase(name, outer.depth + 1 if outer else 0, 0, steps))

    def step(self, name: str, step: int) -> bool:
        """A step is done. False where the build shall end."""
        if phase := self._running.get(name):
            self._tell(replace(phase, done=step + 1))
        return not self.cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before its last step."""
        if phase := self._running.get(name):
            self._tell(replace(phase, over=True))

    def _tell(self, phase: Phase) -> None:
        with self._lock:
            self._running[phase.name] = phase
            if phase.over:
                del self._running[phase.name]
            try:
                self._on_phase(phase)
            except BaseException as error:  # TensorRT would swallow it: see above
                self.failure = self.failure or error
                self.cancelled.set()


def monitor_of(trt: ModuleType, progress: Progress) -> Any:
    """What `config.progress_monitor` takes; None for a TensorRT that reports nothing."""
    return _monitor_class(trt)(progress) if hasattr(trt, "IProgressMonitor") else None


@functools.cache
def _monitor_class(trt: ModuleType) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # found at run time
        def __init__(self, progress: Progress):
            super().__init__()
            self.progress = progress

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self.progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            self.progress.finish(phase_name)

    return Monitor


def lines_of(on_line: OnLine, every_s: float = LINE_EVERY_S) -> OnPhase:
    """For a log: a line now and then with the innermost phase that runs."""
    last = time.monotonic()

    def on_phase(phase: Phase) -> None:
        nonlocal last
        if not phase.over and time.monotonic() - last >= every_s:
            last = time.monotonic()
            on_line(f"{phase.name}, step {phase.done} of {phase.steps}")

    return on_phase


def run_cancellable(build: Callable[[], T], progress: Progress, on_line: OnLine) -> T:
    """Run `build` so that Ctrl-C ends it with TensorRT's next step; then KeyboardInterrupt.

    It runs in a thread: Python hears signals in its main thread alone, and not while that is
    inside TensorRT. TensorRT-RTX does most of its work in one step, so a second Ctrl-C ends the
    whole process at once: a build leaves nothing behind that matters.
    """
    if threading.current_thread() is not threading.main_thread():
        return build()
    with ThreadPoolExecutor(1, "compile") as pool:
        try:
            return pool.submit(build).result()
        except KeyboardInterrupt:
            progress.cancelled.set()
            with _deadly_signals():
                on_line("interrupted: it ends with this step, or at once with another Ctrl-C")
                pool.shutdown()  # it waits: TensorRT must not outlive Python
            raise


@contextmanager
def _deadly_signals() -> Iterator[None]:
    """Let the system end this process at the next signal, whatever it is in."""
    held = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not one of Python's
