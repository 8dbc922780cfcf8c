"""The gate: how far an engine's logits lie from the network's in float32, and whether that is near.

All is measured on images that nothing was calibrated on, and each figure has the 95 % interval of
a bootstrap over them, paired: both engines see the same drawn images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.images import FEWEST_GATED
from trtdet.calibration.metrics import balanced_accuracy, roc_auc
from trtdet.engine.decision import Decision

Logits = NDArray[np.float32]  # [N] where nothing else is said
Labels = NDArray[np.int64]  # [N], 0 real, 1 synthetic

_ROUNDS = 1000


@dataclass(frozen=True)
class Limits:
    """How far an engine may be."""

    flips: float = 0.01  # share of the images that change sides
    p99: float = 0.25  # of |delta logit|, in standard deviations of the logit
    auc_drop: float = 0.005  # where there are labels


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True)
class Comparison:
    """An engine's logits against the reference's, on the same images."""

    images: int
    deviation: float  # of the reference logits
    largest: float  # |delta logit|
    p99: Estimate  # |delta logit| in deviations
    mean: Estimate  # |delta logit| in deviations
    rank_correlation: float  # Spearman's
    lost: int  # logits of this engine that are no finite numbers
    flips: Estimate  # share of the images whose decision changes
    auc: tuple[float, float] | None = None  # the reference's, then this engine's
    auc_drop: Estimate | None = None
    balanced_accuracy: tuple[float, float] | None = None

    def failures(self, limits: Limits) -> list[str]:
        """What is beyond the limits, in words; empty where it passes."""
        found = []
        if self.lost:
            found.append(f"{self.lost} logits are no numbers")
        if not self.flips.value <= limits.flips:
            found.append(f"{self.flips:.1%} of the decisions change (limit {limits.flips:.1%})")
        if not self.p99.value <= limits.p99:
            found.append(
                f"99 % of the logits lie within {self.p99.value:.3f} deviations "
                f"(limit {limits.p99:g})"
            )
        if self.auc_drop is not None and not self.auc_drop.value <= limits.auc_drop:
            found.append(f"AUC falls by {self.auc_drop:.4f} (limit {limits.auc_drop:g})")
        return found


def compare(
    expected: Logits, given: Logits, labels: Labels | None = None, *, seed: int = 0
) -> Comparison:
    """Compare decided logits, above 0 synthetic. One that is no number is infinitely far."""
    reference, logits = np.asarray(expected, np.float64), np.asarray(given, np.float64)
    delta = np.abs(logits - reference)
    delta[~np.isfinite(delta)] = np.inf
    deviation = float(reference.std())
    scaled = delta / (deviation or 1.0)
    flipped = (logits > 0) != (reference > 0)
    count = len(reference)
    draws = np.random.default_rng(seed).integers(0, count, (_ROUNDS, count))

    def estimate(of: Callable[[NDArray[np.int64]], float]) -> Estimate:
        low, high = _interval([of(drawn) for drawn in draws])
        return Estimate(of(np.arange(count)), low, high)

    auc = accuracy = drop = None
    if labels is not None and 0 < labels.sum() < count:
        safe = np.where(np.isfinite(logits), logits, 0.0)
        auc = (roc_auc(labels, reference), roc_auc(labels, safe))
        accuracy = (balanced_accuracy(labels, reference), balanced_accuracy(labels, safe))
        drop = _auc_drop(labels, reference, safe, seed)
    return Comparison(
        images=count,
        deviation=deviation,
        largest=float(delta.max()),
        p99=estimate(lambda drawn: _percentile(scaled[drawn])),
        mean=estimate(lambda drawn: float(scaled[drawn].mean())),
        rank_correlation=_spearman(reference, logits),
        lost=int((~np.isfinite(logits)).sum()),
        flips=estimate(lambda drawn: float(flipped[drawn].mean())),
        auc=auc,
        auc_drop=drop,
        balanced_accuracy=accuracy,
    )


def compare_outputs(
    outputs: Sequence[str],
    decision: Decision,
    reference: Logits,
    logits: Logits,
    labels: Labels | None = None,
) -> dict[str, Comparison]:
    """Compare every output; both sides [N, K] as the networks give them, before the decision."""
    columns = zip(outputs, decision.apply(reference).T, decision.apply(logits).T, strict=True)
    return {name: compare(expected, given, labels) for name, expected, given in columns}


def failures_of(compared: Mapping[str, Comparison], limits: Limits) -> list[str]:
    """What is beyond the limits, over all outputs."""
    several = len(compared) > 1
    return [
        f"{name}: {failure}" if several else failure
        for name, each in compared.items()
        for failure in each.failures(limits)
    ]


def verdict(images: int, failures: Sequence[str]) -> str:
    """What a report says first."""
    gated = "passed" if images >= FEWEST_GATED else "not gated: too few images"
    if not failures:
        return gated
    beyond = f"beyond its limits: {'; '.join(failures)}"
    return beyond if images >= FEWEST_GATED else f"{gated}; {beyond}"


def finite(record: Any) -> Any:
    """A record for JSON, which has no infinity: None in its place."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record


def _auc_drop(
    labels: Labels, reference: NDArray[np.float64], logits: NDArray[np.float64], seed: int
) -> Estimate:
    """How much smaller the AUC is; drawn within each class, or a draw could lack one."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    drops = []
    for _ in range(_ROUNDS):
        drawn = np.concatenate([rng.choice(each, len(each)) for each in classes])
        drops.append(
            roc_auc(labels[drawn], reference[drawn]) - roc_auc(labels[drawn], logits[drawn])
        )
    low, high = _interval(drops)
    return Estimate(roc_auc(labels, reference) - roc_auc(labels, logits), low, high)


def _interval(values: list[float]) -> tuple[float, float]:
    """No interpolation: between two infinities there is none."""
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _percentile(scaled: NDArray[np.float64]) -> float:
    return float(np.quantile(scaled, 0.99, method="higher"))


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The correlation of ranks, ties sharing theirs; 0 where one side is all alike."""
    ours, theirs = _ranks(np.nan_to_num(a)), _ranks(np.nan_to_num(b))
    if not (ours.std() and theirs.std()):
        return 0.0
    return float(np.corrcoef(ours, theirs)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[group], np.float64)
