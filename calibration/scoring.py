"""Score labelled images through the runtime itself, into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.labels import LabelledImage
from trtdet.engine.engine import Engine
from trtdet.engine.machine import core_count
from trtdet.engine.pipeline import Change, score
from trtdet.engine.table import Row


class _Kept:
    """A sink that keeps the rows."""

    def __init__(self, columns: int) -> None:
        self.failures = 0
        self.logits: list[NDArray[np.float32]] = []
        self.reasons: dict[str, str] = {}
        self._none = np.full(columns, np.nan, np.float32)

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        self.logits.append(self._none if logits is None else np.array(list(logits), np.float32))
        if logits is None:
            self.failures += 1
            self.reasons[filename] = str(reason)


def score_each(
    engine: Engine,
    paths: Sequence[Path],
    *,
    change: Change | None = None,
    on_rows: Callable[[int], None] = lambda _count: None,
    threads: int | None = None,
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Logits [N, K], NaN for an image that cannot be scored, and the reasons by file name.

    `change` is done to each decoded image first; `on_rows` hears how many were just scored.
    """
    kept = _Kept(len(engine.columns))
    score(
        (Row(index, str(path)) for index, path in enumerate(paths)),
        lambda row: Path(row.filename),
        engine,
        kept,
        decode_threads=threads or core_count(),
        on_rows=on_rows,
        change=change,
    )
    return np.array(kept.logits, np.float32).reshape(len(paths), -1), kept.reasons


def score_images(
    engine: Engine, images: Sequence[LabelledImage]
) -> tuple[NDArray[np.float32], list[LabelledImage], list[str]]:
    """The logits [N, K] of the images that can be scored, these images, and the others' reasons."""
    logits, reasons = score_each(engine, [each.path for each in images])
    known = np.flatnonzero(~np.isnan(logits).any(1))
    scored = [images[index] for index in known.tolist()]
    return logits[known], scored, [f"{name}: {reason}" for name, reason in reasons.items()]
