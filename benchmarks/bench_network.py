"""A network alone in steady state: latencies and throughput for a batch and a number of streams.

As many slots run as there are streams, so that a latency is that of a batch being computed and not
of one waiting in a queue. Inputs are real images, in place before the clock starts; on a GPU, where
a run uses its input up, each is brought there meanwhile. The first part of the time warms up and is
not counted; the halves of what is counted are compared, and where they differ the machine was not
steady.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from trtdet.benchmarks.steady import second_half_over_first, steady_rate
from trtdet.engine.backends import TENSORRT, BackendStatus, OnDone, Session, fill, open_session
from trtdet.engine.bundle import Bundle
from trtdet.engine.geometry import Pixels
from trtdet.engine.tensorrt import GpuOptions

_WARM_UP = 0.2  # of the time
_LEAST = 4  # batches per stream, however long they take


@dataclass(frozen=True)
class Setting:
    """How a session is opened."""

    batch: int
    streams: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.streams} {'stream' if self.streams == 1 else 'streams'}"


@dataclass(frozen=True)
class NetworkRate:
    """What one setting gave."""

    batch: int
    streams: int
    runs: int  # batches whose latencies were taken
    images_per_s: float
    p50_ms: float  # of a batch
    p90_ms: float
    p99_ms: float
    halves: float | None  # images per second of the second half over those of the first


def open_setting(
    backend: BackendStatus, bundle: Bundle, setting: Setting, gpu: GpuOptions | None = None
) -> Session:
    """A session with one slot for each stream. Raises what `open_session` raises."""
    if backend.name == TENSORRT:
        from dataclasses import replace

        gpu = replace(gpu or GpuOptions(), slots=setting.streams, streams=setting.streams)
    session, _drift = open_session(
        backend,
        bundle,
        batch=None if bundle.tiling else setting.batch,
        slots=setting.streams,
        streams=setting.streams,
        gpu=gpu,
    )
    return session


def time_network(
    backend: BackendStatus,
    bundle: Bundle,
    setting: Setting,
    views: Sequence[Pixels],
    seconds: float,
    gpu: GpuOptions | None = None,
) -> NetworkRate:
    """Open the setting, warm up, and measure for about `seconds`, compilation excluded."""
    # What a slot was given is gone after a run on a GPU, and after an image in tiles.
    again = backend.name == TENSORRT or bundle.tiling is not None
    with closing(open_setting(backend, bundle, setting, gpu)) as session:
        images = cycle(views)

        def fill_slot(slot: int) -> None:
            fill(session, slot, [next(images) for _ in range(session.batch)])

        for slot in range(session.slots):
            fill_slot(slot)
        prepare = fill_slot if again else _nothing
        run_session(session, _WARM_UP * seconds, least=1, prepare=prepare)
        ends = run_session(session, (1.0 - _WARM_UP) * seconds, prepare=prepare)
        return summarise(ends, Setting(session.batch, setting.streams))


def _nothing(_slot: int) -> None:
    pass


class Slots(Protocol):
    """What is run of a session: `trtdet.engine.backends.Session` says more."""

    slots: int
    on_done: OnDone

    def start(self, slot: int) -> None:
        """Run that slot's batch; returns at once."""

    def check(self) -> None:
        """Raise where a slot has failed and will never be done."""


def run_session(
    session: Slots,
    seconds: float,
    *,
    least: int = _LEAST,
    prepare: Callable[[int], object] = _nothing,
) -> list[tuple[float, float]]:
    """(start, end) of every batch, in the order of their ends; `least` of each slot at least.

    `prepare` is called with a slot before each of its runs.
    """
    done: SimpleQueue[tuple[int, float]] = SimpleQueue()
    session.on_done = lambda slot: done.put((slot, time.perf_counter()))
    started, ends = dict[int, float](), list[tuple[float, float]]()
    runs = [0] * session.slots

    def start(slot: int) -> None:
        prepare(slot)
        started[slot] = time.perf_counter()
        session.start(slot)

    deadline = time.perf_counter() + seconds
    for slot in range(session.slots):
        start(slot)
    while started:
        try:
            slot, ended = done.get(timeout=5.0)
        except Empty:
            session.check()
            continue
        ends.append((started.pop(slot), ended))
        runs[slot] += 1
        if ended < deadline or runs[slot] < least:
            start(slot)
    return ends


def summarise(ends: Sequence[tuple[float, float]], setting: Setting) -> NetworkRate:
    """Percentiles of the latencies, and the rate while every stream was busy.

    While each stream's last batch ends, others stand still already: these are left out of the rate.
    """
    latencies = np.sort([1e3 * (end - start) for start, end in ends])
    times = [end for _start, end in ends[: -setting.streams]]
    done = [setting.batch * count for count in range(1, len(times) + 1)]
    p50, p90, p99 = (
        float(np.quantile(latencies, share, method="higher")) for share in (0.5, 0.9, 0.99)
    )
    return NetworkRate(
        setting.batch,
        setting.streams,
        len(ends),
        steady_rate(times, done),
        p50,
        p90,
        p99,
        second_half_over_first(times, done, setting.streams),
    )
