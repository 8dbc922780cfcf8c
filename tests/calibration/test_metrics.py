from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.metrics import (
    average_precision,
    balanced_accuracy,
    roc_auc,
    with_interval,
)


def draw(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(labels * 0.7, 1.0)
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order(seed: int, ties: bool):
    labels, scores = draw(seed, ties)
    synthetic, real = scores[labels == 1], scores[labels == 0]
    pairs = synthetic[:, None] - real[None, :]
    expected = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    assert roc_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_sums_over_thresholds(seed: int, ties: bool):
    labels, scores = draw(seed, ties)
    expected, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        recall = labels[called].sum() / labels.sum()
        expected += (recall - recall_before) * labels[called].mean()
        recall_before = recall
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_weighs_both_classes_alike():
    labels = np.array([1, 1, 1, 1, 0])
    scores = np.array([1.0, 2.0, -1.0, 0.0, -3.0])  # 0 is not above 0: called real
    assert balanced_accuracy(labels, scores) == (0.5 + 1.0) / 2


def test_the_interval_holds_the_value_and_is_repeatable():
    labels, scores = draw(3, ties=False)
    first = with_interval(roc_auc, labels, scores, rounds=200)
    assert first == with_interval(roc_auc, labels, scores, rounds=200)
    assert first.low < first.value < first.high
