"""Detection metrics on logits. Labels: 1 synthetic, 0 real. They equal scikit-learn's.

Every metric is a function of `Counts`: how often each distinct score occurs in each class. Ties are
then one step by themselves, and resamples of one data set (leading axes of the counts) are measured
all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # [N]
Labels = NDArray[np.int64]  # [N], 0 or 1
Values = NDArray[np.float64]  # a metric's, [...]: one for each resample


@dataclass(frozen=True)
class Counts:
    """Images of each class at each distinct score. Both classes have some."""

    scores: Scores  # [U], ascending
    real: NDArray[np.int64]  # [..., U]
    synthetic: NDArray[np.int64]  # [..., U]


Metric = Callable[[Counts], Values]


def count_scores(labels: Labels, scores: Scores) -> Counts:
    """The counts of labelled scores."""
    distinct, place = np.unique(scores, return_inverse=True)
    real, synthetic = (np.bincount(place[labels == label], minlength=len(distinct))
                       for label in (0, 1))  # fmt: skip
    return Counts(distinct, real, synthetic)


def area_under_roc(counts: Counts) -> Values:
    """The chance that a synthetic image outscores a real one, a tie counting half."""
    below = np.cumsum(counts.real, -1) - counts.real
    outscored = (counts.synthetic * (below + counts.real / 2.0)).sum(-1)
    return np.asarray(outscored / (counts.real.sum(-1) * counts.synthetic.sum(-1)))


def mean_precision(counts: Counts) -> Values:
    """Average precision: precision over the recall's steps, no interpolation."""
    hits = _at_or_above(counts.synthetic)
    called = np.maximum(hits + _at_or_above(counts.real), 1)
    steps = counts.synthetic / counts.synthetic.sum(-1, keepdims=True)
    return np.asarray((steps * hits / called).sum(-1))


def true_positive_rate(counts: Counts, threshold: float = 0.0) -> Values:
    """The share of synthetic images above the threshold."""
    return _share(counts.synthetic, counts.scores > threshold)


def true_negative_rate(counts: Counts, threshold: float = 0.0) -> Values:
    """The share of real images at the threshold or below."""
    return _share(counts.real, counts.scores <= threshold)


def balanced_accuracy_at(counts: Counts, threshold: float = 0.0) -> Values:
    """Mean of the two classes' accuracies, where an image above the threshold is synthetic."""
    both = true_positive_rate(counts, threshold) + true_negative_rate(counts, threshold)
    return np.asarray(both / 2.0)


def accuracy_at(counts: Counts, threshold: float = 0.0) -> Values:
    """The share of images on their side of the threshold."""
    above = counts.scores > threshold
    right = np.where(above, counts.synthetic, counts.real).sum(-1)
    return np.asarray(right / (counts.real.sum(-1) + counts.synthetic.sum(-1)))


def best_threshold(counts: Counts) -> float:
    """The threshold of the best balanced accuracy, in the middle of the gap that it lies in.

    Of several as good, the one nearest 0, where the detector itself decides. Chosen on the images
    that it is measured on, it flatters.
    """
    edges = counts.scores
    middles = np.concatenate([[edges[0] - 1.0], (edges[1:] + edges[:-1]) / 2.0, [edges[-1] + 1.0]])
    below = np.concatenate([[0], np.cumsum(counts.real)]) / counts.real.sum()
    missed = np.concatenate([[0], np.cumsum(counts.synthetic)]) / counts.synthetic.sum()
    gain = below - missed
    best = middles[gain >= gain.max() - 1e-12]
    return float(best[np.argmin(np.abs(best))])


def roc_curve(counts: Counts) -> tuple[Values, Values]:
    """False and true positive rates, (0, 0) to (1, 1), a point after each distinct score."""
    real, synthetic = (np.concatenate([[0.0], np.cumsum(each[::-1]) / each.sum()])
                       for each in (counts.real, counts.synthetic))  # fmt: skip
    return real, synthetic


def roc_auc(labels: Labels, scores: Scores) -> float:
    """`area_under_roc` of labelled scores."""
    return float(area_under_roc(count_scores(labels, scores)))


def average_precision(labels: Labels, scores: Scores) -> float:
    """`mean_precision` of labelled scores."""
    return float(mean_precision(count_scores(labels, scores)))


def balanced_accuracy(labels: Labels, scores: Scores) -> float:
    """`balanced_accuracy_at` the decision `logit > 0`."""
    return float(balanced_accuracy_at(count_scores(labels, scores)))


def _at_or_above(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.cumsum(counts[..., ::-1], -1)[..., ::-1])


def _share(counts: NDArray[np.int64], kept: NDArray[np.bool_]) -> Values:
    return np.asarray(counts[..., kept].sum(-1) / counts.sum(-1))
