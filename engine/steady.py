"""The rate of steady work, from when how much of it was done."""

from __future__ import annotations


class SteadyRate:
    """Units per second: the slope of the least-squares line through `done` over time.

    Streams that compute side by side end side by side. A count from one end to another takes in
    batches without the time that they took: of three pairs of batches it makes 5 in 2 steps for 4.
    The line passes through the middle of every pair.
    """

    def __init__(self) -> None:
        self._count = 0
        self._time = self._done = 0.0  # means
        self._spread = self._shared = 0.0  # sums of squares and of products, around the means

    def add(self, time: float, done: float) -> None:
        """`done` units in all by then, in seconds of any clock."""
        self._count += 1
        before = time - self._time
        self._time += before / self._count
        self._done += (done - self._done) / self._count
        self._spread += before * (time - self._time)
        self._shared += before * (done - self._done)

    @property
    def per_s(self) -> float | None:
        """None before two times are known."""
        return self._shared / self._spread if self._spread > 0.0 else None
