from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trtdet.calibration.bootstrap import draw_metrics, with_intervals
from trtdet.calibration.interval import share_in_pictures, wilson
from trtdet.calibration.labels import LabelledImage
from trtdet.calibration.metrics import (
    area_under_roc,
    balanced_accuracy_at,
    roc_auc,
    true_positive_rate,
)
from trtdet.calibration.pictures import number_pictures

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
    drawn = draw_metrics(METRICS, labels, scores, rounds=4000)["AUC"]
    rng = np.random.default_rng(9)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    plain = []
    for _ in range(4000):
        each = np.concatenate([rng.choice(members, len(members)) for members in classes])
        plain.append(roc_auc(labels[each], scores[each]))
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.002)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.06)


def test_files_of_one_picture_are_drawn_together():
    """Against pictures drawn one by one."""
    rng = np.random.default_rng(5)
    pictures = np.repeat(np.arange(80), rng.integers(1, 5, 80))
    labels = pictures % 2
    scores = rng.normal(labels * 0.7 + rng.normal(0, 1, 80)[pictures], 0.3)
    drawn = draw_metrics(METRICS, labels, scores, pictures, rounds=4000)["AUC"]
    members = [np.flatnonzero(pictures == each) for each in range(80)]
    plain = []
    for _ in range(4000):
        each = np.concatenate(
            [members[2 * n + label] for label in (0, 1) for n in rng.integers(0, 40, 40)]
        )
        plain.append(roc_auc(labels[each], scores[each]))
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.005)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.06)
    alone = draw_metrics(METRICS, labels, scores, rounds=4000)["AUC"]
    assert drawn.std() > 1.3 * alone.std()


def test_copies_of_files_make_nothing_surer():
    labels, scores = draw(60)
    once = with_intervals(METRICS, labels, scores, rounds=200)
    copies = np.repeat(np.arange(60), 4)
    assert with_intervals(METRICS, labels[copies], scores[copies], copies, rounds=200) == once
    right = (scores > 0) == (labels == 1)
    for found in (share_in_pictures(right[copies], copies), share_in_pictures(right, copies[::4])):
        expected = wilson(float(right.mean()), 60)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_is_as_sure_as_its_pictures_differ():
    picture = np.repeat(np.arange(50), 4)
    all_right = share_in_pictures(np.ones(200, bool), picture)
    assert all_right == wilson(1.0, 50)  # a picture says as much as a file
    one_wrong = share_in_pictures(np.arange(200) > 0, picture)
    assert one_wrong.low < all_right.low  # and a mistake makes nothing better
    unequal = share_in_pictures(np.array([True] * 100 + [False]), np.repeat([0, 1], [100, 1]))
    assert unequal.low < 0.4  # two pictures are two


def test_pictures_are_numbered_by_name_or_else_by_file():
    images = [LabelledImage(Path(f"{each}.png"), 0, image=each[0]) for each in ("a1", "b1", "a2")]
    images += [LabelledImage(Path("c.png"), 1), LabelledImage(Path("d.png"), 1)]
    numbers = number_pictures(images)
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 4


def test_memory_does_not_grow_with_the_rounds(monkeypatch):
    """Rounds in small parts give the same distribution: all are there, from one generator."""
    monkeypatch.setattr("trtdet.calibration.bootstrap._AT_ONCE", 500)
    labels, scores = draw(100)
    drawn = draw_metrics({"found": true_positive_rate}, labels, scores, rounds=333)["found"]
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
    found = wilson(hits / total, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert found.low <= found.value == hits / total <= found.high
