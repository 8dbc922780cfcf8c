"""The rate of a measurement, and whether the machine kept it."""

from __future__ import annotations

from collections.abc import Sequence

from trtdet.engine.steady import SteadyRate


def steady_rate(times: Sequence[float], done: Sequence[float]) -> float:
    """Per second, of `done` units in all by each of `times`; 0.0 where time did not pass."""
    rate = SteadyRate()
    for time, units in zip(times, done, strict=True):
        rate.add(time, units)
    return rate.per_s or 0.0


def second_half_over_first(times: Sequence[float], done: Sequence[float]) -> float:
    """The rate of the second half over that of the first; 1.0 where there is too little to tell."""
    middle = len(times) // 2
    if middle < 2:
        return 1.0
    early = steady_rate(times[:middle], done[:middle])
    late = steady_rate(times[middle:], done[middle:])
    return late / early if early > 0.0 else 1.0
