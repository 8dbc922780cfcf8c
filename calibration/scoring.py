"""Score labelled images through the runtime itself, into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.labels import LabelledImage
from trtdet.engine.engine import Engine
from trtdet.engine.machine import core_count
from trtdet.engine.pipeline import score
from trtdet.engine.table import Row


class _Kept:
    """A sink that keeps the rows."""

    def __init__(self) -> None:
        self.failures = 0
        self.logits: list[NDArray[np.float32] | None] = []
        self.reasons: list[str] = []

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        self.logits.append(None if logits is None else np.array(list(logits), np.float32))
        if logits is None:
            self.failures += 1
            self.reasons.append(f"{filename}: {reason}")


def score_images(
    engine: Engine, images: Sequence[LabelledImage]
) -> tuple[NDArray[np.float32], list[LabelledImage], list[str]]:
    """The logits [N, K] of the images that can be scored, these images, and the others' reasons."""
    kept = _Kept()
    score(
        (Row(index, str(each.path)) for index, each in enumerate(images)),
        lambda row: Path(row.filename),
        engine,
        kept,
        decode_threads=core_count(),
    )
    pairs = zip(kept.logits, images, strict=True)
    scored = [(logits, each) for logits, each in pairs if logits is not None]
    together = np.array([logits for logits, _ in scored], np.float32)
    return together, [each for _, each in scored], kept.reasons
