"""Metrics equal scikit-learn's, and what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from trtdet.calibration.metrics import (
    accuracy_at,
    area_under_roc,
    average_precision,
    balanced_accuracy,
    best_threshold,
    count_scores,
    mean_precision,
    roc_auc,
    roc_curve,
    true_negative_rate,
    true_positive_rate,
)


def draw(seed: int, ties: bool, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    scores = rng.normal(labels * 0.7, 1.0)
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [12, 300, 5000])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learns(seed: int, count: int, ties: bool):
    labels, scores = draw(seed, ties, count)
    counts, called = count_scores(labels, scores), scores > 0
    expected = [
        (roc_auc(labels, scores), sklearn.roc_auc_score(labels, scores)),
        (average_precision(labels, scores), sklearn.average_precision_score(labels, scores)),
        (balanced_accuracy(labels, scores), sklearn.balanced_accuracy_score(labels, called)),
        (accuracy_at(counts), sklearn.accuracy_score(labels, called)),
        (true_positive_rate(counts), sklearn.recall_score(labels, called)),
        (true_negative_rate(counts), sklearn.recall_score(labels, called, pos_label=0)),
    ]
    for found, reference in expected:
        assert float(found) == pytest.approx(reference, abs=1e-12)
    false, true, _thresholds = sklearn.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(counts), [false, true], atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order(seed: int, ties: bool):
    labels, scores = draw(seed, ties)
    synthetic, real = scores[labels == 1], scores[labels == 0]
    pairs = synthetic[:, None] - real[None, :]
    expected = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    assert roc_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [area_under_roc, mean_precision, accuracy_at])
def test_resamples_are_measured_like_data_sets(metric):
    """Leading axes of the counts: each gives what it would by itself."""
    labels, scores = draw(1, ties=True)
    counts = count_scores(labels, scores)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(4)]
    each = [np.stack([np.bincount(np.searchsorted(counts.scores, scores[one][labels[one] == label]),
                                  minlength=len(counts.scores)) for one in drawn])
            for label in (0, 1)]  # fmt: skip
    together = metric(type(counts)(counts.scores, *each))
    alone = [metric(count_scores(labels[one], scores[one])) for one in drawn]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_balanced_accuracy_weighs_both_classes_alike():
    labels = np.array([1, 1, 1, 1, 0])
    scores = np.array([1.0, 2.0, -1.0, 0.0, -3.0])  # 0 is not above 0: called real
    assert balanced_accuracy(labels, scores) == (0.5 + 1.0) / 2


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best(seed: int):
    labels, scores = draw(seed, ties=True)
    best = balanced_accuracy(labels, scores - best_threshold(count_scores(labels, scores)))
    for threshold in np.unique(np.concatenate([scores - 0.05, scores, scores + 0.05])):
        assert balanced_accuracy(labels, scores - threshold) <= best + 1e-12


@pytest.mark.parametrize(
    ("real", "synthetic", "expected"),
    [([1.0, 2.0], [4.0, 5.0], 3.0), ([-9.0], [9.0], 0.0), ([5.0], [1.0], 0.0)],
)
def test_the_best_threshold_lies_in_the_middle_of_its_gap(real, synthetic, expected):
    """Where all are wrong, nearest 0: everything is called synthetic at 0 as below it."""
    labels = np.array([0] * len(real) + [1] * len(synthetic))
    assert best_threshold(count_scores(labels, np.array(real + synthetic))) == expected
