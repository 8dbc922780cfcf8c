"""Several GPUs: a process each. Rows go out as answers come in, and are written in their order.

A process has an engine, decode threads and a Python of its own: they share nothing to wait for. One
that dies is started again, and the rows that it had are scored one at a time: a row that kills its
process twice, alone in it, has failed. A process that dies again and again without an answer is
given up, and the others go on; the run ends when none is left.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait

import numpy as np

from trtdet.engine.fleet_process import Numbered, Process
from trtdet.engine.fleet_worker import REDUCTIONS, Ready, Result, WorkerOptions
from trtdet.engine.pipeline import Summary
from trtdet.engine.reductions import Reduction
from trtdet.engine.runner import Resolve
from trtdet.engine.sink import Sink
from trtdet.engine.table import Row
from trtdet.errors import BackendError

# Rows that may be handed out while an older one has no answer, in multiples of what is in flight:
# how far the others get ahead of one slow image, and how much waits in memory to be written.
AHEAD = 8

TRIES = 3  # deaths in a row without an answer, until a process is given up
STRIKES = 2  # deaths of a process that had nothing but one row, until the row has failed

POLL_S = 0.5  # how often `stopping` is asked while nobody answers


@contextmanager
def open_fleet(workers: list[WorkerOptions]) -> Iterator[Fleet]:
    """Start a process for each, and end them with the block.

    Raises what opening an engine raises, and BackendError where the engines are not alike.
    A score must not depend on where its row went.
    """
    processes: list[Process] = []
    try:
        processes += [Process(options) for options in workers]
        yield Fleet(processes)
    finally:
        for process in processes:
            process.end()


class Fleet:
    """Processes with one engine each. See `trtdet.engine.runner.Runner`."""

    def __init__(self, processes: list[Process]):
        self._processes = processes
        ready = [process.wait_until_ready() for process in processes]
        self.name, self.batch = ready[0].name, ready[0].batch
        for process, each in zip(processes, ready, strict=True):
            if (each.name, each.batch) != (self.name, self.batch):
                raise BackendError(
                    f"{process.label} runs {each.name} in batches of {each.batch}, "
                    f"{processes[0].label} {self.name} in batches of {self.batch}: a score would "
                    "depend on where its row went. Take GPUs of one kind, and give --batch"
                )

    @property
    def in_flight(self) -> int:
        """Rows that can be begun and not yet written."""
        return sum(process.window for process in self._processes)

    def score(
        self,
        rows: Iterator[Row],
        resolve: Resolve,
        sink: Sink,
        *,
        on_rows: Callable[[int], None],
        stopping: Callable[[], bool],
    ) -> Summary:
        """See `Runner`."""
        start, failed_before = time.perf_counter(), sink.failures
        for process in self._processes:
            process.tell_where(resolve)
        run = _Run(self._processes, rows, sink, on_rows, stopping)
        run.drive()
        seconds = time.perf_counter() - start
        return Summary(run.written, sink.failures - failed_before, seconds)

    def reductions(self) -> list[Reduction]:
        """As the first process has measured them."""
        found: list[Reduction] = self._processes[0].ask(REDUCTIONS)
        return found

    def reduce(self, reduction: Reduction) -> None:
        """In every process."""
        for process in self._processes:
            if not process.given_up:
                process.reduce(reduction)


class _Run:
    """One pass over rows: hands them out, hears the answers, writes them in order."""

    def __init__(
        self,
        processes: list[Process],
        rows: Iterator[Row],
        sink: Sink,
        on_rows: Callable[[int], None],
        stopping: Callable[[], bool],
    ):
        self.written = 0
        self._processes, self._sink = processes, sink
        self._on_rows, self._stopping = on_rows, stopping
        self._rows: Iterator[Numbered] = enumerate(rows)
        self._over = False  # there are no more rows, or no more are wanted
        self._handed_out = 0
        self._suspects: deque[Numbered] = deque()  # of processes that died: scored one at a time
        self._strikes: Counter[int] = Counter()  # of suspects
        self._answers: dict[int, tuple[Row, Result]] = {}  # that wait for older ones

    def drive(self) -> None:
        while True:
            self._over = self._over or self._stopping()
            for process in self._alive:
                self._feed(process)
            if self._over and self.written == self._handed_out:
                return
            of = {handle: process for process in self._alive for handle in process.handles}
            for process in {of[handle] for handle in wait(list(of), POLL_S)}:
                self._hear(process)
            self._write()

    @property
    def _alive(self) -> list[Process]:
        return [process for process in self._processes if not process.given_up]

    def _feed(self, process: Process) -> None:
        """Hand out what the process can take now."""
        if process.ready is None:
            return
        if self._suspects and process is self._nurse:
            if process.running:
                process.flush()  # what it has is finished first
            if not process.outstanding:
                process.give([self._suspects.popleft()])
                process.flush()
            return
        while not self._over and process.room >= process.ready.batch and self._may_have(process):
            rows = list(islice(self._rows, process.ready.batch))
            self._over = len(rows) < process.ready.batch
            if rows:
                self._handed_out += len(rows)
                process.give(rows)
        if self._over and process.running:
            process.flush()

    @property
    def _nurse(self) -> Process:
        """Who scores suspects, and gets nothing else meanwhile: whoever has least to do."""
        return min(self._alive, key=lambda process: len(process.outstanding))

    def _may_have(self, process: Process) -> bool:
        """Whether it is not too far ahead. Whoever has the oldest row always gets more: it may need
        them to fill the batch that the row is in."""
        ahead = self._handed_out - self.written
        has_oldest = bool(process.outstanding) and process.outstanding[0][0] == self.written
        return has_oldest or ahead < AHEAD * sum(each.window for each in self._alive)

    def _hear(self, process: Process) -> None:
        try:
            while process.says_something():
                message = process.hear()
                if isinstance(message, Ready):
                    process.ready = message
                elif isinstance(message, list):
                    process.deaths = 0
                    for result in message:
                        number, row = process.outstanding.popleft()
                        self._answers[number] = row, result
        except Exception as reason:
            self._lost(process, reason)

    def _lost(self, process: Process, reason: Exception) -> None:
        """A process died, or its engine failed: another takes its place."""
        process.deaths += 1
        if process.deaths < TRIES:
            lost = process.restart()
        else:
            lost = process.give_up()
            if not self._alive:
                raise reason
        if len(lost) == 1 and self._strike(lost[0], reason):
            return
        self._suspects.extendleft(reversed(lost))

    def _strike(self, suspect: Numbered, reason: Exception) -> bool:
        """Whether the row has failed, which was alone in a process that died."""
        number, row = suspect
        self._strikes[number] += 1
        if self._strikes[number] < STRIKES:
            return False
        self._answers[number] = row, f"{reason}, and again, while it scored this row alone"
        return True

    def _write(self) -> None:
        before = self.written
        while self.written in self._answers:
            row, result = self._answers.pop(self.written)
            if isinstance(result, str):
                self._sink.write(row.filename, None, result)
            else:
                self._sink.write(row.filename, [np.float32(logit) for logit in result], None)
            self.written += 1
        if self.written > before:
            self._on_rows(self.written - before)
