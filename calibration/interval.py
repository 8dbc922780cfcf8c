"""A value and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 1.959963984540054  # standard errors either side of a normal 95 % interval


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share_of(hits: int, total: int) -> Interval:
    """`hits` of `total` with Wilson's interval, which has a width at 0 and at 1 as well."""
    share, z2 = hits / total, Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = Z / (1 + z2 / total) * spread
    # At the ends rounding would put the share itself outside.
    return Interval(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))
