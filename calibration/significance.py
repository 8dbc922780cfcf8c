"""Whether two detectors differ on the same images by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.bootstrap import ROUNDS, interval
from trtdet.calibration.interval import Interval, Z
from trtdet.calibration.metrics import Labels, Scores


@dataclass(frozen=True)
class Difference:
    """One detector's metric minus another's, and how likely chance alone gives as much."""

    value: Interval
    p: float


def auc_difference(labels: Labels, first: Scores, second: Scores) -> Difference:
    """AUC of `first` minus that of `second`, both of the same images, by DeLong's test.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 44, 1988. Two-sided, with the normal
    interval. Needs two images of each class.
    """
    synthetic, real = zip(*(_placements(labels, each) for each in (first, second)), strict=True)
    value = float(synthetic[0].mean() - synthetic[1].mean())
    variance = sum(
        float(np.var(each[0] - each[1], ddof=1)) / len(each[0]) for each in (synthetic, real)
    )
    error = math.sqrt(variance)
    if error == 0.0:
        p = 1.0 if value == 0.0 else 0.0
    else:
        p = math.erfc(abs(value) / error / math.sqrt(2.0))
    return Difference(Interval(value, value - Z * error, value + Z * error), p)


def accuracy_difference(
    labels: Labels, first: Scores, second: Scores, *, rounds: int = ROUNDS, seed: int = 0
) -> Difference:
    """Balanced accuracy at logit > 0 of `first` minus that of `second`, of the same images.

    The interval is a paired bootstrap's within each class; p is `swap_test`'s. Needs an image of
    each class.
    """
    rng = np.random.default_rng(seed)
    truth = labels == 1
    right = [(scores > 0) == truth for scores in (first, second)]
    gained = right[0].astype(int) - right[1].astype(int)  # -1, 0 or 1 for each image
    value, drawn = 0.0, np.zeros(rounds)
    classes = []
    for label in (0, 1):
        each = gained[labels == label]
        shares = [float((each == gain).mean()) for gain in (-1, 0, 1)]
        value += (shares[2] - shares[0]) / 2.0
        counts = rng.multinomial(len(each), shares, rounds)
        drawn += (counts[:, 2] - counts[:, 0]) / len(each) / 2.0
        classes.append((len(each), int((each > 0).sum()), int((each < 0).sum())))
    return Difference(interval(value, drawn), swap_test(*classes))


def swap_test(real: tuple[int, int, int], synthetic: tuple[int, int, int]) -> float:
    """Two-sided exact p of a difference in balanced accuracy.

    Of each class: its images, those that the first alone gets right, and those that the second
    alone gets right. Where the two are of the same worth, each of the latter images could as well
    have been the other's; p is how often such swaps give as large a difference. With classes of
    one size it is McNemar's exact test.
    """
    (n, n_first, n_second), (m, m_first, m_second) = real, synthetic
    n_alone, m_alone = n_first + n_second, m_first + m_second
    # 2 n m times the difference, in whole numbers, so that ties are ties.
    observed = abs(m * (n_first - n_second) + n * (m_first - m_second))
    of_real = m * (2 * np.arange(n_alone + 1) - n_alone)
    # How many of the synthetic ones the first must get for the sum to reach `observed`.
    least = -((of_real - observed - n * m_alone) // (2 * n))
    upper = np.append(np.cumsum(_even_chances(m_alone)[::-1])[::-1], 0.0)
    tail = float(_even_chances(n_alone) @ upper[np.clip(least, 0, m_alone + 1)])
    return 1.0 if observed == 0 else min(1.0, 2.0 * tail)  # the other tail is its mirror image


def _even_chances(count: int) -> NDArray[np.float64]:
    """The chance of each number of heads, 0 to `count`."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    return np.asarray(np.exp(logs[-1] - logs - logs[::-1] - count * math.log(2.0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for being several (Holm, 1979): none falls below another's order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def _placements(labels: Labels, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each synthetic image the share of real ones below it, for each real one the share of
    synthetic ones above it, ties counting half. The mean of either is the AUC.
    """
    synthetic, real = scores[labels == 1], scores[labels == 0]
    return _share_below(synthetic, real), 1.0 - _share_below(real, synthetic)


def _share_below(each: Scores, others: Scores) -> NDArray[np.float64]:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, each, "left") + np.searchsorted(ordered, each, "right")
    return np.asarray(below / (2.0 * len(ordered)))
