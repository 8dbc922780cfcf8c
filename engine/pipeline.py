"""The scoring pipeline: rows in, one row out for each, in order, in bounded memory.

    rows ─▶ slots ─▶ decode pool ─▶ sessions (asynchronous) ─▶ sink, in input order

A slot holds one batch of consecutive rows. Decode threads fill slots while the session runs others;
a slot is reused only after its rows were written, so memory depends on the number of slots and not
on the number of rows. Batches have one fixed shape and every image has its own place, so a score
does not depend on its neighbours, on the order, or on the number of threads.

An ensemble has a session per member. An image is decoded once, brought to each member's input, and
its slot is done when every member has seen it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.confine import Confined
from trtdet.engine.decode import Limits, quiet_decoders, read_image_file
from trtdet.engine.decode_pool import DecodePool, Decoder, ThreadDecoder
from trtdet.engine.engine import Engine
from trtdet.engine.geometry import Pixels
from trtdet.engine.nvtx import stage
from trtdet.engine.sink import Sink
from trtdet.engine.steps import Rgb
from trtdet.engine.table import Row
from trtdet.errors import ImageError

# How long to wait for a result before asking the session whether it is still alive.
LIVENESS_S = 5.0

DEFAULT_LIMITS = Limits()

Change = Callable[[Row, Rgb], Rgb]  # makes of a decoded image the one that is scored


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    rows: int
    failures: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Scored images per second of the whole run, compilation excluded."""
        return (self.rows - self.failures) / self.seconds if self.seconds > 0 else 0.0

    def __add__(self, later: Summary) -> Summary:
        return Summary(
            self.rows + later.rows,
            self.failures + later.failures,
            self.seconds + later.seconds,
        )


@dataclass(frozen=True)
class Inputs:
    """An image that was brought to the lanes' inputs elsewhere: [views, H, W, 3] for each."""

    views: tuple[Pixels, ...]


# What a row's image is read from: a file, an encoded file in memory, or what `Inputs` holds.
Source = Path | Confined | bytes | Inputs


@dataclass
class _Slot:
    """One batch on its way through."""

    number: int
    rows: list[Row] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)  # per row: why it failed
    undecoded: int = 0
    unfinished: int = 0  # sessions that have not ended


def score(
    rows: Iterable[Row],
    resolve: Callable[[Row], Source],
    engine: Engine,
    sink: Sink,
    *,
    decode_threads: int,
    limits: Limits = DEFAULT_LIMITS,
    isolate: bool = False,
    on_rows: Callable[[int], None] = lambda _count: None,
    stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _text: None,
    change: Change | None = None,
) -> Summary:
    """Score every row into `sink`, in order. `on_rows` hears how many rows were just written.

    `resolve` is called in a decode thread, and may read, and raise ImageError, itself. Once
    `stopping` says so no row is begun; those that were are finished. `isolate` decodes in sandboxed
    processes, to the same pixels; `say` hears, once, what a user should know about them.
    `change` is done to each image that was decoded here, in a decode thread.

    A row whose image cannot be scored is written with its reason; the run goes on. Raises
    BackendError when a session fails.
    """
    quiet_decoders(limits.max_pixels)
    start, failed_before = time.perf_counter(), sink.failures
    run = _Run(resolve, engine, sink, limits, on_rows, stopping, say, change)
    open_decoder = decoder_opener(limits, isolate, run.say_once)
    with DecodePool(decode_threads, limits.max_seconds, open_decoder, run.break_off) as pool:
        run.drive(iter(rows), pool)
    failures = sink.failures - failed_before
    return Summary(run.written, failures, time.perf_counter() - start)


def decoder_opener(
    limits: Limits, isolate: bool, say: Callable[[str], None]
) -> Callable[[bool], Decoder]:
    """What gives the threads of a `DecodePool` their decoders."""

    def open_decoder(replaces: bool) -> Decoder:
        if isolate or (replaces and sys.platform == "linux"):
            from trtdet.engine.isolate import IsolatedDecoder

            if not isolate:
                say(
                    "a file took too long, and its thread cannot be stopped: a process takes its "
                    "place, as with --isolate"
                )
            return IsolatedDecoder(limits, say)
        return ThreadDecoder(limits)

    return open_decoder


class _Run:
    """One pass over a table: the caller's thread hands rows out and writes them, in order.

    A decode thread that fills a slot's last place starts the slot; the sessions' threads, and
    decode threads that break, only post to the caller's thread.
    """

    def __init__(
        self,
        resolve: Callable[[Row], Source],
        engine: Engine,
        sink: Sink,
        limits: Limits,
        on_rows: Callable[[int], None],
        stopping: Callable[[], bool],
        say: Callable[[str], None],
        change: Change | None,
    ):
        self.written, self._stopping, self._change = 0, stopping, change
        self._say, self._said = say, set[str]()
        self._resolve, self._engine = resolve, engine
        self._sink, self._limits, self._on_rows = sink, limits, on_rows
        self._slots = [_Slot(number) for number in range(engine.slots)]
        self._ended: SimpleQueue[int | BaseException] = SimpleQueue()  # a slot, or what broke
        self._count_lock = Lock()
        for lane in engine.lanes:
            lane.session.on_done = self._ended.put

    def drive(self, rows: Iterable[Row], pool: DecodePool) -> None:
        rows = iter(rows)
        free = deque(self._slots)
        in_order: deque[_Slot] = deque()
        while True:
            while (
                free and not self._stopping() and (batch := list(islice(rows, self._engine.batch)))
            ):
                slot = free.popleft()
                in_order.append(slot)
                self._fill(slot, batch, pool)
            if not in_order:
                return
            self._slots[self._next_ended()].unfinished -= 1
            while in_order and in_order[0].unfinished == 0:
                slot = in_order.popleft()
                self._write(slot)
                free.append(slot)

    def _fill(self, slot: _Slot, batch: list[Row], pool: DecodePool) -> None:
        slot.rows, slot.reasons = batch, [None] * len(batch)
        slot.undecoded, slot.unfinished = len(batch), len(self._engine.lanes)
        for position in range(len(batch), self._engine.batch):
            self._engine.blank(slot.number, position)
        for position, row in enumerate(batch):
            pool.submit(partial(self._decode, row), partial(self._place, slot, position))

    def say_once(self, text: str) -> None:
        """In any thread."""
        with self._count_lock:
            known = text in self._said
            self._said.add(text)
        if not known:
            self._say(text)

    def break_off(self, broken: BaseException) -> None:
        """In any thread: the caller's thread raises it."""
        self._ended.put(broken)

    def _decode(self, row: Row, decoder: Decoder) -> Rgb | Inputs:
        """In a decode thread, which may be abandoned meanwhile: one row's image."""
        if not row.filename:
            raise ImageError("the row has no file name")
        with stage("decode"):
            source = self._resolve(row)
            if isinstance(source, Inputs):
                return source
            if not isinstance(source, bytes):
                source = read_image_file(source, max_bytes=self._limits.max_bytes)
            return decoder.decode(source)

    def _place(self, slot: _Slot, position: int, decoded: Rgb | Inputs | ImageError) -> None:
        """In a decode thread, or the pool's watch: one row's image into its place in the slot."""
        try:
            if isinstance(decoded, ImageError):
                raise decoded
            self._load(slot, position, decoded)
        except ImageError as reason:
            slot.reasons[position] = str(reason)
            self._engine.blank(slot.number, position)
        with self._count_lock:
            slot.undecoded -= 1
            if slot.undecoded > 0:
                return
        for lane in self._engine.lanes:
            if any(reason is None for reason in slot.reasons):
                lane.session.start(slot.number)
            else:  # there is nothing in it to infer
                self._ended.put(slot.number)

    def _load(self, slot: _Slot, position: int, image: Rgb | Inputs) -> None:
        if self._change is not None and not isinstance(image, Inputs):
            image = self._change(slot.rows[position], image)
        try:
            with stage("load"):
                for number, lane in enumerate(self._engine.lanes):
                    if isinstance(image, Inputs):
                        lane.session.put(slot.number, position, image.views[number])
                    else:
                        lane.session.load(slot.number, position, image)
        except MemoryError as error:
            raise ImageError("not enough memory to bring it to the detector's size") from error

    def _next_ended(self) -> int:
        while True:
            try:
                ended = self._ended.get(timeout=LIVENESS_S)
            except Empty:
                for lane in self._engine.lanes:
                    lane.session.check()
                continue
            if isinstance(ended, BaseException):
                raise ended
            return ended

    def _write(self, slot: _Slot) -> None:
        with stage("write"):
            self._write_rows(slot, self._engine.logits(slot.number))
        self.written += len(slot.rows)
        self._on_rows(len(slot.rows))

    def _write_rows(self, slot: _Slot, logits: NDArray[np.float32]) -> None:
        for row, reason, scores in zip(slot.rows, slot.reasons, logits, strict=False):
            if reason is None and not np.isfinite(scores).all():
                reason = f"the network gave {scores[~np.isfinite(scores)][0]}"
            self._sink.write(row.filename, None if reason else scores, reason)
