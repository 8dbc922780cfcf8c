"""A detector's scores of distorted images, through the pipeline that scores files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.evaluation import measure
from trtdet.benchmarks.evaluation_report import Point, Settings
from trtdet.calibration.distortions import FAMILIES, Family, Level, file_generator
from trtdet.calibration.metrics import Labels, Scores
from trtdet.calibration.pictures import Pictures
from trtdet.calibration.scoring import score_each
from trtdet.engine.engine import Engine
from trtdet.engine.pipeline import Change
from trtdet.engine.table import Row
from trtdet.errors import ImageError

OnRows = Callable[[int], None]


def draw_subset(
    labels: Labels, scored: NDArray[np.bool_], count: int, seed: int
) -> NDArray[np.int64]:
    """Indices of `count` images, half of each class where there are as many, in order.

    The images [N] are drawn in one order whatever `scored` [N] leaves out, so that bundles have the
    same ones but for those that one of them cannot score.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
    drawn = [order[scored[order]][: (count + label) // 2] for label, order in enumerate(orders)]
    return np.sort(np.concatenate(drawn))


def passes(families: Sequence[Family] = FAMILIES) -> int:
    """How often the images are scored."""
    return sum(level.distort is not None for family in families for level in family.levels)


def measure_robustness(
    engine: Engine,
    paths: Sequence[Path],
    labels: Labels,
    pictures: Pictures,
    undistorted: NDArray[np.float32],
    settings: Settings,
    *,
    on_rows: OnRows,
    threads: int | None = None,
    families: Sequence[Family] = FAMILIES,
) -> list[dict[str, list[Point]]]:
    """For each of the engine's logits the points of every family's curve.

    `undistorted` are the logits [N, K] of the images as they are, which need no second pass. An
    image that cannot be scored once it is distorted is counted, and left out of that point.
    """
    curves: list[dict[str, list[Point]]] = [{} for _column in engine.columns]
    for family in families:
        for level in family.levels:
            logits = undistorted
            if level.distort is not None:
                change = _change(level, settings.seed)
                logits, _reasons = score_each(
                    engine, paths, change=change, on_rows=on_rows, threads=threads
                )
            for column, curve in enumerate(curves):
                scores = logits[:, column].astype(np.float64)
                point = _point(level.name, labels, scores, pictures, settings)
                curve.setdefault(family.name, []).append(point)
    return curves


def _change(level: Level, seed: int) -> Change:
    distort = level.distort
    assert distort is not None

    def change(row: Row, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            return distort(rgb, file_generator(seed, Path(row.filename).name))
        except (OSError, ValueError, MemoryError, cv2.error) as error:  # a codec's largest size
            raise ImageError(f"it cannot be distorted ({level.name}): {error}") from error

    return change


def _point(
    level: str, labels: Labels, logits: Scores, pictures: Pictures, settings: Settings
) -> Point:
    scored = ~np.isnan(logits)
    measured = measure(labels[scored], logits[scored], pictures[scored], settings)
    return Point(level, int((~scored).sum()), measured)
