from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.bootstrap import draw_metrics, with_intervals
from trtdet.calibration.interval import share_of
from trtdet.calibration.metrics import (
    area_under_roc,
    balanced_accuracy_at,
    count_scores,
    roc_auc,
    true_positive_rate,
)

METRICS = {"AUC": area_under_roc, "balanced": balanced_accuracy_at}


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, count)
    return labels, np.round(rng.normal(labels * 0.7, 1.0), 2)


def test_the_interval_holds_the_value_and_is_repeatable():
    labels, scores = draw(60)
    first = with_intervals(METRICS, labels, scores, rounds=200)
    assert first == with_intervals(METRICS, labels, scores, rounds=200)
    assert first != with_intervals(METRICS, labels, scores, rounds=200, seed=1)
    assert first["AUC"].low < first["AUC"].value < first["AUC"].high
    assert first["AUC"].value == pytest.approx(roc_auc(labels, scores))


def test_resamples_are_as_plain_resampling_has_them():
    """Mean and spread of the drawn metrics, against images drawn one by one."""
    labels, scores = draw(300)
    drawn = draw_metrics(METRICS, count_scores(labels, scores), rounds=4000)["AUC"]
    rng = np.random.default_rng(9)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    plain = []
    for _ in range(4000):
        each = np.concatenate([rng.choice(members, len(members)) for members in classes])
        plain.append(roc_auc(labels[each], scores[each]))
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.002)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.06)


def test_memory_does_not_grow_with_the_rounds(monkeypatch):
    """Rounds in small parts give the same distribution: all are there, from one generator."""
    monkeypatch.setattr("trtdet.calibration.bootstrap._AT_ONCE", 500)
    labels, scores = draw(100)
    counts = count_scores(labels, scores)
    drawn = draw_metrics({"found": true_positive_rate}, counts, rounds=333)["found"]
    assert drawn.shape == (333,)
    assert len(set(drawn.tolist())) > 5


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_shares_have_wilsons_interval(hits, total, low, high):
    """The values of Newcombe, Statistics in Medicine 17, 1998 (81/263), and of R's binom."""
    found = share_of(hits, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert found.low <= found.value == hits / total <= found.high
