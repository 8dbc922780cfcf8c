"""The rate of steady work, from when how much of it was done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def steady_rate(times: Sequence[float], done: Sequence[float]) -> float:
    """Per second: the slope of the least-squares line through `done`, so far, over `times`.

    Streams that compute side by side end side by side. A count from one end to another takes in
    batches without the time that they took: of three pairs of batches it makes 5 in 2 steps for 4.
    The line passes through the middle of every pair.
    """
    t, d = np.asarray(times, np.float64), np.asarray(done, np.float64)
    t, d = t - t.mean(), d - d.mean()
    return float(t @ d / max(t @ t, 1e-18))


def second_half_over_first(times: Sequence[float], done: Sequence[float]) -> float:
    """The rate of the second half over that of the first; 1.0 where there is too little to tell."""
    middle = len(times) // 2
    if middle < 2:
        return 1.0
    early = steady_rate(times[:middle], done[:middle])
    late = steady_rate(times[middle:], done[middle:])
    return late / early if early > 0.0 else 1.0
