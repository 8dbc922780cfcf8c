"""The rate of a measurement, and whether the machine kept it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from trtdet.engine.steady import SteadyRate

_FEWEST = 8  # ends whose halves are compared


def steady_rate(times: Sequence[float], done: Sequence[float]) -> float:
    """Per second, of `done` units in all by each of `times`; 0.0 where time did not pass."""
    rate = SteadyRate()
    for time, units in zip(times, done, strict=True):
        rate.add(time, units)
    return rate.per_s or 0.0


def second_half_over_first(
    times: Sequence[float], done: Sequence[float], together: int = 1
) -> float | None:
    """The rate of the second half of the time over that of the first; None: too few to tell.

    So many streams end `together`: the middle must not fall among ends of the same moment.
    """
    if len(times) < max(_FEWEST, 4 * together):
        return None
    middle = bisect_right(times, (times[0] + times[-1]) / 2.0)
    early = steady_rate(times[:middle], done[:middle])
    late = steady_rate(times[middle:], done[middle:])
    return late / early if early > 0.0 and late > 0.0 else None
