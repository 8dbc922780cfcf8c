"""How sure a metric is: percentile bootstrap, resampled within each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.interval import Interval
from trtdet.calibration.metrics import Counts, Labels, Metric, Scores, Values, count_scores

ROUNDS = 2000

_AT_ONCE = 1 << 20  # counts of resamples in memory, of each class


def with_intervals(
    metrics: Mapping[str, Metric],
    labels: Labels,
    scores: Scores,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric with its interval, all on the same resamples."""
    counts = count_scores(labels, scores)
    drawn = draw_metrics(metrics, counts, rounds=rounds, seed=seed)
    return {name: interval(metric(counts), drawn[name]) for name, metric in metrics.items()}


def draw_metrics(
    metrics: Mapping[str, Metric], counts: Counts, *, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, Values]:
    """Every metric on `rounds` resamples, each [rounds]."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Values]] = {name: [] for name in metrics}
    for resamples in _resamples(counts, rounds, rng):
        for name, metric in metrics.items():
            parts[name].append(metric(resamples))
    return {name: np.concatenate(values) for name, values in parts.items()}


def interval(value: float | Values, drawn: Values) -> Interval:
    """A value with the middle 95 % of what resamples gave for it."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _resamples(counts: Counts, rounds: int, rng: np.random.Generator) -> Iterator[Counts]:
    """Counts of `rounds` resamples, as many at a time as there is memory for."""
    step = max(1, _AT_ONCE // len(counts.scores))
    for first in range(0, rounds, step):
        size = min(step, rounds - first)
        real, synthetic = (_redraw(each, size, rng) for each in (counts.real, counts.synthetic))
        yield Counts(counts.scores, real, synthetic)


def _redraw(counts: NDArray[np.int64], rounds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A class drawn again from itself, with replacement: [rounds, U]."""
    place = np.repeat(np.arange(len(counts)), counts)  # of each image
    drawn = place[rng.integers(0, len(place), (rounds, len(place)))]
    drawn += len(counts) * np.arange(rounds)[:, None]
    flat = np.bincount(drawn.ravel(), minlength=rounds * len(counts))
    return flat.reshape(rounds, len(counts))
