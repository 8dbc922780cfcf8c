"""A process of a fleet, as its parent sees it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

from trtdet.engine.fleet_worker import FLUSH, Ready, WorkerOptions, work
from trtdet.engine.reductions import Reduction
from trtdet.engine.runner import Resolve
from trtdet.engine.table import Row
from trtdet.errors import BackendError

Numbered = tuple[int, Row]  # a row, and its place in the run

END_S = 5.0  # for what a process still does when it is not wanted any more


class Process:
    """Starts with the object, and again with `restart`; whoever makes it calls `end`."""

    def __init__(self, options: WorkerOptions):
        self.label = options.label
        self.ready: Ready | None = None  # None: it is starting
        self.outstanding: deque[Numbered] = deque()  # handed out and not answered, oldest first
        self.running = False  # there are rows that no FLUSH follows
        self.deaths = 0  # since its last answer
        self.given_up = False
        self._options = options
        self._resolve: Resolve | None = None
        self._reduced: list[Reduction] = []
        self._start()

    @property
    def handles(self) -> list[Any]:
        """For `multiprocessing.connection.wait`: readable when it says something, or has died."""
        return [self._connection, self._process.sentinel]

    @property
    def window(self) -> int:
        """Rows that it has at once: a batch more than can be in flight. With fewer it may wait for
        rows while others are finished and not yet answered."""
        return self.ready.in_flight + self.ready.batch if self.ready else 0

    @property
    def room(self) -> int:
        """Rows that it takes now."""
        return self.window - len(self.outstanding)

    def give(self, rows: list[Numbered]) -> None:
        """Rows to score."""
        self.outstanding.extend(rows)
        self.running = True
        self._send([row for _, row in rows])

    def flush(self) -> None:
        """There are no more rows for now: what was begun is finished."""
        self.running = False
        self._send(FLUSH)

    def tell_where(self, resolve: Resolve) -> None:
        """How names become paths, from now on."""
        self._resolve = resolve
        self._send(resolve)

    def reduce(self, reduction: Reduction) -> None:
        """Leave that out, and wait until it is."""
        self._reduced.append(reduction)
        self._send(reduction)
        self.wait_until_ready()

    def ask(self, question: str) -> Any:
        """Its answer to a question between runs."""
        self._send(question)
        return self.hear()

    def hear(self) -> Any:
        """What it says next. Raises what it failed with, BackendError where it died."""
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(END_S)
            raise BackendError(f"the process of {self.label} died ({self._fate()})") from None
        if isinstance(message, Exception):
            raise message
        return message

    def says_something(self) -> bool:
        """Whether `hear` would not wait."""
        return self._connection.poll()

    def wait_until_ready(self) -> Ready:
        """Raises what opening its engine raised."""
        message = self.hear()
        if not isinstance(message, Ready):
            raise BackendError(f"the process of {self.label} says {message!r} before it is ready")
        self.ready = message
        return message

    def restart(self) -> list[Numbered]:
        """A new process in its place. Returns the rows that the old one had."""
        lost = self.give_up()
        self.given_up = False
        self._start()
        return lost

    def give_up(self) -> list[Numbered]:
        """No process any more. Returns the rows that it had."""
        self.end()
        self.ready, self.given_up = None, True
        lost = list(self.outstanding)
        self.outstanding.clear()
        return lost

    def end(self) -> None:
        """It reads the end of its pipe, and is killed where it does not."""
        self._connection.close()
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        context = get_context("spawn")  # a fork would have no threads, and CUDA forbids it
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, self._options), name=f"trtdet {self.label}", daemon=True
        )
        self._process.start()
        theirs.close()
        self.ready, self.running = None, False
        if self._resolve is not None:
            self._send(self._resolve)
        for reduction in self._reduced:
            self._send(reduction)

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # it died: `hear` says so
            self._connection.send(message)

    def _fate(self) -> str:
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
