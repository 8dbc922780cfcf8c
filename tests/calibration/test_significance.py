"""DeLong's test against its definition, swaps against all of them, Holm's in a worked case."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from trtdet.calibration.metrics import balanced_accuracy, roc_auc
from trtdet.calibration.significance import accuracy_difference, auc_difference, holm, swap_test


def draw(seed: int, count: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two detectors that share half of what they see."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    common = rng.normal(labels, 1.0)
    return labels, common + rng.normal(0, 1.0, count), np.round(common + rng.normal(0, 0.5, count))


def brute_force(labels, first, second) -> tuple[float, float]:
    """The difference and its variance, from every pair of images and the two covariances."""
    kernels = []
    for scores in (first, second):
        synthetic, real = scores[labels == 1], scores[labels == 0]
        kernel = np.empty((len(synthetic), len(real)))
        for i, a in enumerate(synthetic):
            for j, b in enumerate(real):
                kernel[i, j] = 1.0 if a > b else 0.5 if a == b else 0.0
        kernels.append(kernel)
    rows, columns = (np.cov([each.mean(axis) for each in kernels]) for axis in (1, 0))
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (rows / len(kernels[0]) + columns / kernels[0].shape[1]) @ contrast
    return kernels[0].mean() - kernels[1].mean(), float(variance)


@pytest.mark.parametrize("seed", range(6))
def test_delong_equals_its_definition(seed: int):
    labels, first, second = draw(seed)
    value, variance = brute_force(labels, first, second)
    found = auc_difference(labels, first, second)
    assert found.value.value == pytest.approx(value, abs=1e-12)
    assert found.value.value == pytest.approx(roc_auc(labels, first) - roc_auc(labels, second))
    assert (found.value.high - found.value.low) / 2 == pytest.approx(
        1.959963984540054 * math.sqrt(variance), abs=1e-12
    )
    normal = 2 * (1 - 0.5 * (1 + math.erf(abs(value) / math.sqrt(variance) / math.sqrt(2))))
    assert found.p == pytest.approx(normal, abs=1e-12)


def test_delong_rejects_as_often_as_it_says_where_nothing_differs():
    """Two detectors of the same worth: p is below 0.1 in a tenth of the draws."""
    below = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 60)
        common = rng.normal(labels, 1.0)
        pair = (common + rng.normal(0, 1, 120) for _ in range(2))
        below += auc_difference(labels, *pair).p < 0.1
    assert below / 400 == pytest.approx(0.1, abs=0.04)


def test_a_detector_does_not_differ_from_itself():
    labels, first, _second = draw(0)
    for difference in (auc_difference, accuracy_difference):
        found = difference(labels, first, first)
        assert (found.value.value, found.value.low, found.value.high, found.p) == (0, 0, 0, 1)


def test_the_difference_in_balanced_accuracy_is_that_of_the_two():
    labels, first, second = draw(2)
    found = accuracy_difference(labels, first, second)
    expected = balanced_accuracy(labels, first) - balanced_accuracy(labels, second)
    assert found.value.value == pytest.approx(expected, abs=1e-12)
    rng = np.random.default_rng(1)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    plain = []
    for _ in range(4000):
        each = np.concatenate([rng.choice(members, len(members)) for members in classes])
        plain.append(balanced_accuracy(labels[each], first[each])
                     - balanced_accuracy(labels[each], second[each]))  # fmt: skip
    low, high = np.quantile(plain, [0.025, 0.975])
    assert found.value.low == pytest.approx(low, abs=0.015)
    assert found.value.high == pytest.approx(high, abs=0.015)


def gains(images: int, first: int, second: int) -> tuple[int, np.ndarray]:
    """A class in which the first alone gets some images right, the second alone others."""
    return images, np.repeat([1, -1, 0], [first, second, 3])


@pytest.mark.parametrize(
    ("first", "second"), [(5, 5), (0, 6), (1, 9), (59, 6), (2600, 2400), (5000, 0), (0, 0)]
)
def test_with_classes_of_one_size_it_is_mcnemars_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    for moved in (0, first // 3, first):  # whichever class they are of
        classes = [
            gains(9000, moved, second // 2), gains(9000, first - moved, second - second // 2)
        ]  # fmt: skip
        assert swap_test(*classes) == pytest.approx(expected, rel=1e-9)
        swapped = [(size, -gained) for size, gained in classes]
        assert swap_test(*swapped) == swap_test(*classes)


@pytest.mark.parametrize("largest", [1, 3])
@pytest.mark.parametrize("seed", range(15))
def test_it_is_the_share_of_all_swaps_that_differ_as_much(seed, largest):
    rng = np.random.default_rng(seed)
    real, synthetic = (
        (int(rng.integers(6, 9)), rng.integers(-largest, largest + 1, 6)) for _class in range(2)
    )
    weights = np.concatenate([real[1] * synthetic[0], synthetic[1] * real[0]])
    observed = abs(weights.sum())
    swaps = [abs(np.dot(signs, weights)) for signs in product((-1, 1), repeat=len(weights))]
    expected = np.mean([each >= observed for each in swaps])
    assert swap_test(real, synthetic) == pytest.approx(expected, rel=1e-12)


def test_copies_of_files_make_no_difference_surer():
    labels, first, second = draw(4)
    copies = np.repeat(np.arange(len(labels)), 3)
    for difference in (auc_difference, accuracy_difference):
        once = difference(labels, first, second)
        found = difference(labels[copies], first[copies], second[copies], copies)
        assert found.p == pytest.approx(once.p, rel=1e-9)
        assert (found.value.value, found.value.low, found.value.high) == pytest.approx(
            (once.value.value, once.value.low, once.value.high), abs=1e-12
        )
        surer = difference(labels[copies], first[copies], second[copies])
        assert surer.p < once.p or once.p == 1.0


def test_a_few_images_are_never_certain():
    labels = np.array([0, 0, 1, 1])
    found = auc_difference(labels, np.array([-2.0, -1.0, 1.0, 2.0]), np.zeros(4))
    assert (found.value.value, found.p) == (0.5, 0.125)  # 2 of the 16 ways to swap their scores
    labels = np.array([0, 0, 0, 1, 1, 1])  # every image differs by a third, but for rounding
    found = auc_difference(labels, np.array([1.0, 3, 5, 2, 4, 6]), np.array([2.0, 4, 6, 1, 3, 5]))
    assert (found.value.value, found.p) == (pytest.approx(1 / 3), 2.0**-5)


def test_a_difference_of_nothing_is_nothing_whatever_the_plain_accuracy_says():
    assert swap_test(gains(1000, 50, 0), gains(100, 0, 5)) == 1.0


def test_a_million_images_take_a_moment():
    p = swap_test(gains(600_000, 90_000, 89_000), gains(400_000, 70_300, 70_000))
    assert 0.0 < p < 0.05
    several = np.random.default_rng(1).integers(-4, 5, 100_000)  # pictures of up to four files
    p = swap_test((1_000_000, several[:50_000]), (1_000_000, several[50_000:]))
    error = math.sqrt(float(several @ several))
    assert p == pytest.approx(math.erfc(abs(int(several.sum())) / error / math.sqrt(2)), abs=0.01)


def test_holm_is_a_step_down_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
