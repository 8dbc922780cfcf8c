"""From raw logits to the one that is written: a detector's calibration, an ensemble's vote.

Everything is computed in float64 and rounded to float32 once; where the answer's sign decides, it
survives the rounding. What a network failed to say (NaN, an infinity) becomes no score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
_Wide = NDArray[np.float64]
Combine = Literal["mean-logit", "mean-probability"]


@dataclass(frozen=True)
class Decision:
    """Platt scaling: the written logit is `scale * logit + shift`."""

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.shift) and self.scale > 0):
            raise ValueError(
                f"a decision needs a scale above 0 and a finite shift, not {self.scale}, "
                f"{self.shift}"
            )

    def apply(self, logits: Logits) -> Logits:
        """Any shape."""
        if self == AS_IT_IS:
            return logits
        decided = _rounded(self.scale * logits.astype(np.float64) + self.shift)
        return np.where(np.isfinite(logits), decided, logits)


AS_IT_IS = Decision()


@dataclass(frozen=True)
class Vote:
    """How an ensemble's members become one logit.

    `mean-logit`: the weighted mean of their logits, less the logit of `threshold`.
    `mean-probability`: the logit of the weighted mean of their probabilities, less that of
    `threshold`: above 0 exactly where the mean is above `threshold` (VIP Cup 2022, Megatron).
    """

    combine: Combine
    weights: tuple[float, ...]  # of the members; they need not sum to 1
    threshold: float = 0.5  # a probability

    def __post_init__(self) -> None:
        if self.combine not in ("mean-logit", "mean-probability"):
            raise ValueError(f"{self.combine!r} is neither mean-logit nor mean-probability")
        if not (all(weight > 0 for weight in self.weights) and math.isfinite(sum(self.weights))):
            raise ValueError(f"weights are numbers above 0, not {list(self.weights)}")
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"a threshold is a probability between 0 and 1, not {self.threshold}")

    def apply(self, members: Sequence[Logits]) -> Logits:
        """Each member's logits [N] to one logit each [N]; NaN where a member's is not finite."""
        logits = np.stack(members).astype(np.float64)  # [M, N]
        weights = np.array(self.weights)[:, None] / sum(self.weights)
        bar = math.log(self.threshold) - math.log1p(-self.threshold)
        with np.errstate(invalid="ignore", divide="ignore"):
            combined = self._combined(logits, weights, bar)
        return np.where(np.isfinite(logits).all(0), combined, np.float32(np.nan))

    def _combined(self, logits: _Wide, weights: _Wide, bar: float) -> Logits:
        if self.combine == "mean-logit":
            return _rounded((weights * logits).sum(0) - bar)
        synthetic = (weights * _sigmoid(logits)).sum(0)  # the mean probability, and of real:
        real = (weights * _sigmoid(-logits)).sum(0)  # summed apart, or 1 - 1e-20 would be 1
        combined = _rounded(np.log(synthetic) - np.log(real) - bar)
        tiny = np.finfo(np.float32).smallest_subnormal
        return np.where(
            synthetic > self.threshold, np.maximum(combined, tiny), np.minimum(combined, 0.0)
        ).astype(np.float32)


def _sigmoid(x: _Wide) -> _Wide:
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _rounded(logits: _Wide) -> Logits:
    """To float32: away from infinity and, unless it is 0, from 0."""
    limits = np.finfo(np.float32)
    rounded = np.clip(logits, -limits.max, limits.max).astype(np.float32)
    lost = (rounded == 0) & (logits != 0)
    return np.where(lost, np.copysign(limits.smallest_subnormal, logits), rounded).astype(
        np.float32
    )
