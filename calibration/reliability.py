"""Whether a logit's probability, 1 / (1 + exp(-logit)), is how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.interval import Interval, share_in_pictures
from trtdet.calibration.metrics import Labels, Scores
from trtdet.calibration.pictures import Pictures, pictures_of

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose probability lies in one part of 0 to 1."""

    images: int
    probability: float  # their mean
    synthetic: Interval  # their share, with Wilson's interval


def reliability(
    labels: Labels, logits: Scores, pictures: Pictures | None = None, bins: int = BINS
) -> list[Bin]:
    """The images in bins of equal width; empty bins are left out.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, with the probability
    of being synthetic in place of the confidence in the called class.
    """
    probability = probabilities(logits)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        Bin(
            int(inside.sum()),
            float(probability[inside].mean()),
            share_in_pictures(labels[inside] == 1, pictures_of(place, number, pictures)),
        )
        for number in range(bins)
        for inside in [place == number]
        if inside.any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: what probability and share differ by, weighted by images."""
    total = sum(each.images for each in bins)
    return sum(each.images * abs(each.probability - each.synthetic.value) for each in bins) / total


def probabilities(logits: Scores) -> NDArray[np.float64]:
    """The logistic function, of any finite logit."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
