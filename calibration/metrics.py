"""Detection metrics on logits, with bootstrap intervals. Labels: 1 synthetic, 0 real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # [N]
Labels = NDArray[np.int64]  # [N], 0 or 1
Metric = Callable[[Labels, Scores], float]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def roc_auc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve: the chance that a synthetic image outscores a real one."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[group]  # ties share their mean rank
    above = rank[labels == 1].sum() - positives * (positives + 1) / 2.0
    return float(above / (positives * negatives))


def average_precision(labels: Labels, scores: Scores) -> float:
    """Precision averaged over the recall steps, no interpolation (as scikit-learn has it)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    ends = np.append(
        np.flatnonzero(np.diff(scores[order])), len(scores) - 1
    )  # tied scores: one step
    precision = hits[ends] / (ends + 1.0)
    recall = hits[ends] / labels.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def balanced_accuracy(labels: Labels, scores: Scores) -> float:
    """Mean of the two classes' accuracies at the decision `logit > 0`."""
    called = scores > 0
    return float((called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2.0)


def with_interval(
    metric: Metric, labels: Labels, scores: Scores, *, rounds: int = 1000, seed: int = 0
) -> Interval:
    """The metric with a 95 % percentile bootstrap, resampled within each class."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([rng.choice(each, len(each)) for each in classes])
        values.append(metric(labels[drawn], scores[drawn]))
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(metric(labels, scores), float(low), float(high))
