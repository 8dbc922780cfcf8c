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
from trtdet.calibration.pictures import Pictures, pictures_of

Integers = NDArray[np.int64]

_ROUNDING = 1e-12  # of a difference that is none


@dataclass(frozen=True)
class Difference:
    """One detector's metric minus another's, and how likely chance alone gives as much."""

    value: Interval
    p: float


def auc_difference(
    labels: Labels, first: Scores, second: Scores, pictures: Pictures | None = None
) -> Difference:
    """AUC of `first` minus that of `second`, both of the same images, by DeLong's test.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 44, 1988; images of one picture, within
    a class, stand together as in Obuchowski, "Nonparametric analysis of clustered ROC curve data",
    Biometrics 53, 1997. Two-sided, with the normal interval. Needs two pictures of each class.
    """
    placed = [_placements(labels, each) for each in (first, second)]
    value, variance, drawn = float(placed[0][1].mean() - placed[1][1].mean()), 0.0, 0
    for label, (one, other) in enumerate(zip(*placed, strict=True)):
        differences = one - other
        excess = np.bincount(pictures_of(labels, label, pictures), differences - differences.mean())
        count = len(excess)
        variance += count / (count - 1) * float(excess @ excess) / len(differences) ** 2
        drawn += count
    error = math.sqrt(variance)
    if error > _ROUNDING:
        p = math.erfc(abs(value) / error / math.sqrt(2.0))
    else:  # all differ alike: as likely as that every picture's scores were swapped, or none's
        p = 1.0 if abs(value) <= _ROUNDING else 2.0 ** (1 - drawn)
    return Difference(Interval(value, value - Z * error, value + Z * error), p)


def accuracy_difference(
    labels: Labels,
    first: Scores,
    second: Scores,
    pictures: Pictures | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Difference:
    """Balanced accuracy at logit > 0 of `first` minus that of `second`, of the same images.

    The interval is a paired bootstrap's over the pictures of each class; p is `swap_test`'s. Needs
    an image of each class.
    """
    rng = np.random.default_rng(seed)
    truth = labels == 1
    right = [(scores > 0) == truth for scores in (first, second)]
    gained = right[0].astype(int) - right[1].astype(int)  # -1, 0 or 1 for each image
    value, drawn, classes = 0.0, np.zeros(rounds), []
    for label in (0, 1):
        each, picture = gained[labels == label], pictures_of(labels, label, pictures)
        value += each.mean() / 2.0
        of_picture = np.stack([np.bincount(picture), np.bincount(picture, each).astype(int)], 1)
        kinds, count = np.unique(of_picture, axis=0, return_counts=True)  # images, and their gain
        images, gain = (rng.multinomial(count.sum(), count / count.sum(), rounds) @ kinds).T
        drawn += gain / images / 2.0
        classes.append((len(each), of_picture[:, 1]))
    return Difference(interval(value, drawn), swap_test(*classes))


Gains = tuple[int, Integers]  # the images of a class, and of each picture what the first gains


def swap_test(real: Gains, synthetic: Gains) -> float:
    """Two-sided exact p of a difference in balanced accuracy.

    Of each class: its images, and for each picture how many of its images the first alone gets
    right, less those that the second alone gets right. Where the two are of the same worth, what
    one gains by a picture could as well have been the other's; p is how often such swaps give as
    large a difference. With an image to a picture and classes of one size it is McNemar's test.
    """
    (n, of_real), (m, of_synthetic) = real, synthetic
    # 2 n m times the difference, in whole numbers, so that ties are ties.
    observed = abs(m * int(of_real.sum()) + n * int(of_synthetic.sum()))
    swaps, others = _swaps(of_real), _swaps(of_synthetic)
    largest, reach = len(swaps) // 2, len(others) // 2
    # What the synthetic pictures must give for the sum to reach `observed`.
    least = -((m * np.arange(-largest, largest + 1) - observed) // n)
    upper = np.append(np.cumsum(others[::-1])[::-1], 0.0)
    tail = float(swaps @ upper[np.clip(least + reach, 0, len(others))])
    return 1.0 if observed == 0 else min(1.0, 2.0 * tail)  # the other tail is its mirror image


def _swaps(gains: Integers) -> NDArray[np.float64]:
    """The chance of every sum of the gains, each of either sign: 0 lies in the middle."""
    chances = np.ones(1)
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        even = np.trim_zeros(_even_chances(count))  # far from the middle they are below any float
        spread = np.zeros(2 * size * (len(even) - 1) + 1)
        spread[:: 2 * size] = even
        chances = np.convolve(chances, spread)
    return chances


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
    """For each real image the share of synthetic ones above it, for each synthetic one the share
    of real ones below it, ties counting half. The mean of either is the AUC.
    """
    synthetic, real = scores[labels == 1], scores[labels == 0]
    return 1.0 - _share_below(real, synthetic), _share_below(synthetic, real)


def _share_below(each: Scores, others: Scores) -> NDArray[np.float64]:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, each, "left") + np.searchsorted(ordered, each, "right")
    return np.asarray(below / (2.0 * len(ordered)))
