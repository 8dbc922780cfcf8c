"""From files to a table: the whole pipeline in steady state, and what its parts took meanwhile."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from trtdet.benchmarks.bench_stages import HOST_STAGES, Heard
from trtdet.engine.engine import Engine
from trtdet.engine.nvtx import listen
from trtdet.engine.pipeline import score
from trtdet.engine.sink import open_sink
from trtdet.engine.table import Row

_WARM_UP = 0.2  # of the time
_LEAST_SLOTS = 3  # times that every slot runs, however long that takes


@dataclass(frozen=True)
class WholeRate:
    """What the pipeline gave with one setting."""

    batch: int
    threads: int  # that decode
    rows: int  # that were counted
    images_per_s: float
    halves: float  # images per second of the second half over those of the first
    stage_us: dict[str, float]  # wall microseconds per image in each part, all threads together


def time_whole(engine: Engine, paths: Sequence[Path], threads: int, seconds: float) -> WholeRate:
    """Run the pipeline on the files over and over for about `seconds`."""
    least = _LEAST_SLOTS * engine.slots * engine.batch
    start = time.perf_counter()
    warm, deadline = start + _WARM_UP * seconds, start + seconds
    marks: list[tuple[float, int]] = [(start, 0)]  # when, and how many rows were written by then

    def rows() -> Iterator[Row]:
        for index, path in enumerate(cycle(paths)):
            if index >= least and time.perf_counter() > deadline:
                return
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
    steady = [mark for mark in marks if warm <= mark[0] <= deadline]
    if len(steady) < 3:  # so slow that the time was over before much was written
        steady = marks
    first, middle, last = steady[0], steady[len(steady) // 2], steady[-1]
    return WholeRate(
        engine.batch,
        threads,
        last[1] - first[1],
        _rate(first, last),
        _rate(middle, last) / _rate(first, middle),
        {
            name: 1e6 * heard.seconds[name] / summary.rows
            for name in HOST_STAGES
            if name in heard.seconds
        },
    )


def _rate(first: tuple[float, int], last: tuple[float, int]) -> float:
    return (last[1] - first[1]) / max(last[0] - first[0], 1e-9)
