"""How sure a metric is: percentile bootstrap over pictures, resampled within each class.

Several files may be cut from one picture. They are not several witnesses: a resample has all of a
picture's files of a class, or none, as often as the picture was drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.interval import Interval
from trtdet.calibration.metrics import Counts, Labels, Metric, Scores, Values, count_scores
from trtdet.calibration.pictures import Pictures, pictures_of

ROUNDS = 2000

_AT_ONCE = 1 << 20  # images of resamples in memory


def with_intervals(
    metrics: Mapping[str, Metric],
    labels: Labels,
    scores: Scores,
    pictures: Pictures | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric with its interval, all on the same resamples."""
    counts = count_scores(labels, scores)
    drawn = draw_metrics(metrics, labels, scores, pictures, rounds=rounds, seed=seed)
    return {name: interval(metric(counts), drawn[name]) for name, metric in metrics.items()}


def draw_metrics(
    metrics: Mapping[str, Metric],
    labels: Labels,
    scores: Scores,
    pictures: Pictures | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Values]:
    """Every metric on `rounds` resamples, each [rounds]. `pictures` None: an image each."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Values]] = {name: [] for name in metrics}
    for resamples in _resamples(labels, scores, pictures, rounds, rng):
        for name, metric in metrics.items():
            parts[name].append(metric(resamples))
    return {name: np.concatenate(values) for name, values in parts.items()}


def interval(value: float | Values, drawn: Values) -> Interval:
    """A value with the middle 95 % of what resamples gave for it."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _resamples(
    labels: Labels,
    scores: Scores,
    pictures: Pictures | None,
    rounds: int,
    rng: np.random.Generator,
) -> Iterator[Counts]:
    """Counts of `rounds` resamples, as many at a time as there is memory for."""
    distinct, place = np.unique(scores, return_inverse=True)
    classes = [(place[labels == label], pictures_of(labels, label, pictures)) for label in (0, 1)]
    step = max(1, _AT_ONCE // len(scores))
    for first in range(0, rounds, step):
        size = min(step, rounds - first)
        real, synthetic = (
            _redraw(at, picture, len(distinct), size, rng) for at, picture in classes
        )
        yield Counts(distinct, real, synthetic)


def _redraw(
    place: NDArray[np.int64],
    picture: Pictures,
    distinct: int,
    rounds: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """A class's pictures drawn again from themselves, with replacement: [rounds, distinct]."""
    count, row = int(picture.max()) + 1, np.arange(rounds)[:, None]
    drawn = rng.integers(0, count, (rounds, count))
    if count == len(place):  # an image each: twice as quick
        flat = (place[np.argsort(picture)][drawn] + distinct * row).ravel()
        return np.bincount(flat, minlength=rounds * distinct).reshape(rounds, distinct)
    flat = (drawn + count * row).ravel()
    times = np.bincount(flat, minlength=rounds * count).reshape(rounds, count)
    flat = (place + distinct * row).ravel()
    counted = np.bincount(flat, times[:, picture].ravel(), rounds * distinct)
    return counted.astype(np.int64).reshape(rounds, distinct)
