"""One process of a fleet: an engine of its own, fed with rows through a pipe.

    parent ─▶ how names become paths; list[Row], FLUSH; REDUCTIONS; Reduction
    worker ─▶ Ready; list[Result], in the order of the rows; list[Reduction]; an exception

The rows of a run come in pieces; FLUSH says that there are no more for now, and only then is a
batch that is not full run. What the parent sends is read by a thread at once, so that neither side
ever waits for the other to read.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from trtdet.engine.backends import choose_backend
from trtdet.engine.ensemble import open_any
from trtdet.engine.reductions import Reduction
from trtdet.engine.runner import LocalRunner, Resolve, open_local
from trtdet.engine.table import Row

FLUSH, REDUCTIONS = "flush", "reductions"

Result = list[float] | str  # a row's logits, or why it has none


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker opens."""

    label: str  # for messages: "GPU 1"
    backend: str
    bundle: Path
    how: dict[str, Any] = field(default_factory=dict)  # see `open_local`; everything is pickled


@dataclass(frozen=True)
class Ready:
    """The engine is open, or has been reduced."""

    name: str
    batch: int
    in_flight: int


def work(connection: Connection, options: WorkerOptions) -> None:
    """The process, from its start to the end of the pipe, which is that of its parent."""
    # Ctrl-C, and a scheduler's SIGTERM to the group, are the parent's to hear.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    try:
        bundle, (backend, _) = open_any(options.bundle), choose_backend(options.backend)
        with open_local(backend, bundle, **options.how) as runner:
            _send_ready(connection, runner)
            resolve: Resolve | None = None
            while True:
                message = inbox.get()
                if message == REDUCTIONS:
                    connection.send(runner.reductions())
                elif isinstance(message, Reduction):
                    runner.reduce(message)
                    _send_ready(connection, runner)
                elif isinstance(message, list) and resolve is not None:
                    _score(connection, runner, _rows(inbox, message), resolve)
                elif callable(message):
                    resolve = message
    except Exception as error:
        connection.send(_sendable(error))


def _score(
    connection: Connection, runner: LocalRunner, rows: Iterator[Row], resolve: Resolve
) -> None:
    answers = _Answers(connection)
    runner.score(rows, resolve, answers, on_rows=answers.send, stopping=lambda: False)


def _rows(inbox: SimpleQueue[Any], rows: list[Row] | str) -> Iterator[Row]:
    """These, and those that follow up to the next FLUSH."""
    while not isinstance(rows, str):
        yield from rows
        rows = inbox.get()


class _Answers:
    """A sink that sends what the pipeline wrote, batch by batch."""

    def __init__(self, connection: Connection):
        self.failures = 0
        self._connection, self._results = connection, list[Result]()

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """See `trtdet.engine.sink.Sink`."""
        self.failures += logits is None
        self._results.append((reason or "") if logits is None else [float(each) for each in logits])

    def send(self, _count: int) -> None:
        self._connection.send(self._results)
        self._results = []


def _read(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):  # the parent is gone, or does not want more
            os._exit(0)


def _send_ready(connection: Connection, runner: LocalRunner) -> None:
    connection.send(Ready(runner.name, runner.batch, runner.in_flight))


def _sendable(error: Exception) -> Exception:
    """The error itself, or its words, where it does not survive the pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of its arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
