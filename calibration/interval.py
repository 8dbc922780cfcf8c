"""A value and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # standard errors either side of a normal 95 % interval


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share_in_pictures(right: NDArray[np.bool_], picture: NDArray[np.int64]) -> Interval:
    """The share of the images that are `right`, several of which may be of one picture.

    Wilson's interval of as many images as these are worth: their number over the design effect,
    what the share varies between pictures over what it would between as many images that have
    nothing to do with each other (Kish, "Survey Sampling", 1965); at most one for each picture.
    """
    share, sizes = float(right.mean()), np.bincount(picture)
    excess = np.bincount(picture, right) - share * sizes
    variance = float(excess @ excess) / len(right) ** 2
    pictures = float(len(sizes))
    return wilson(share, min(share * (1.0 - share) / variance, pictures) if variance else pictures)


def wilson(share: float, total: float) -> Interval:
    """A share of so many with Wilson's interval, which has a width at 0 and at 1 as well."""
    z2 = Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = Z / (1 + z2 / total) * spread
    # At the ends rounding would put the share itself outside.
    return Interval(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))
