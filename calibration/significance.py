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

    The interval is a paired bootstrap's within each class; p is McNemar's exact test, which asks
    whether the images that one alone gets right are split evenly between the two.
    """
    rng = np.random.default_rng(seed)
    truth = labels == 1
    right = [(scores > 0) == truth for scores in (first, second)]
    gained = right[0].astype(int) - right[1].astype(int)  # -1, 0 or 1 for each image
    value, drawn = 0.0, np.zeros(rounds)
    for label in (0, 1):
        each = gained[labels == label]
        shares = [float((each == gain).mean()) for gain in (-1, 0, 1)]
        value += (shares[2] - shares[0]) / 2.0
        counts = rng.multinomial(len(each), shares, rounds)
        drawn += (counts[:, 2] - counts[:, 0]) / len(each) / 2.0
    alone = (int((gained > 0).sum()), int((gained < 0).sum()))
    return Difference(interval(value, drawn), mcnemar(*alone))


def mcnemar(first_alone: int, second_alone: int) -> float:
    """Two-sided exact p for so many images that the first, and the second, alone gets right."""
    total = first_alone + second_alone
    tail = sum(math.comb(total, k) for k in range(min(first_alone, second_alone) + 1))
    # Whole numbers to the end: 2**total is beyond a float from 1,024 images on.
    return min(1.0, 2 * tail / (1 << total))


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
