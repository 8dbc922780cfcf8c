"""From files to a table: the whole pipeline in steady state, and what its parts took meanwhile."""

from __future__ import annotations

import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from trtdet.benchmarks.bench_stages import HOST_STAGES, Heard
from trtdet.benchmarks.steady import second_half_over_first, steady_rate
from trtdet.engine.engine import Engine
from trtdet.engine.nvtx import listen
from trtdet.engine.pipeline import score
from trtdet.engine.sink import open_sink
from trtdet.engine.table import Row
from trtdet.errors import InputError

_WARM_UP = 0.2  # of the time
_LEAST_SLOTS = 3  # times that every slot runs, however long that takes


@dataclass(frozen=True)
class WholeRate:
    """What the pipeline gave with one setting."""

    batch: int
    threads: int  # that decode
    rows: int  # that were counted
    images_per_s: float
    halves: float | None  # images per second of the second half over those of the first
    p50_ms: float  # from a row's being taken to its line in the output, its waits included
    p90_ms: float
    p99_ms: float
    stage_us: dict[str, float]  # wall microseconds per image in each part, all threads together


def time_whole(engine: Engine, paths: Sequence[Path], threads: int, seconds: float) -> WholeRate:
    """Run the pipeline on the files over and over for about `seconds`.

    Raises InputError where one of them cannot be scored: it would count, and cost next to nothing.
    """
    least = _LEAST_SLOTS * engine.slots * engine.batch
    start = time.perf_counter()
    warm, deadline = start + _WARM_UP * seconds, start + seconds
    marks: list[tuple[float, int]] = [(start, 0)]  # when, and how many rows were written by then
    taken: list[float] = []  # when, of each row

    def rows() -> Iterator[Row]:
        for index, path in enumerate(cycle(paths)):
            if index >= least and time.perf_counter() > deadline:
                return
            taken.append(time.perf_counter())
            yield Row(index, str(path))

    def on_rows(count: int) -> None:
        marks.append((time.perf_counter(), marks[-1][1] + count))

    heard = Heard()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_sink(str(Path(folder) / "scores.csv"), None, engine.columns) as sink,
        listen(heard),
    ):
        summary = score(
            rows(),
            lambda row: Path(row.filename),
            engine,
            sink,
            decode_threads=threads,
            on_rows=on_rows,
        )
    if summary.failures:
        raise InputError(
            f"{summary.failures} of {summary.rows} images cannot be scored: `trtdet score` says why"
        )
    # While every slot was full; the last ones drain while decoders and streams stand still already.
    full = [mark for mark in marks[1:] if mark[1] <= marks[-1][1] - engine.slots * engine.batch]
    steady = [mark for mark in full if mark[0] >= warm]
    if len(steady) < 2:
        steady = full
    times, done = [each for each, _rows in steady], [rows for _each, rows in steady]
    return WholeRate(
        engine.batch,
        threads,
        done[-1] - done[0],
        steady_rate(times, done),
        second_half_over_first(times, done),
        *_latencies(marks, taken, range(done[0], done[-1])),
        {
            name: 1e6 * heard.seconds[name] / summary.rows
            for name in HOST_STAGES
            if name in heard.seconds
        },
    )


def _latencies(
    marks: Sequence[tuple[float, int]], taken: Sequence[float], rows: range
) -> tuple[float, float, float]:
    """The 50th, 90th and 99th percentile of these rows' milliseconds on their way."""
    written = [count for _time, count in marks]
    ends = [marks[bisect_right(written, row)][0] for row in rows]
    waits = [1e3 * (end - taken[row]) for row, end in zip(rows, ends, strict=True)]
    p50, p90, p99 = (float(np.quantile(waits, each, method="higher")) for each in (0.5, 0.9, 0.99))
    return p50, p90, p99
