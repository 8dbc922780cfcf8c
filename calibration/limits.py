"""From a histogram to the magnitude that the largest of 127 levels stands for.

A smaller limit clips the rare large values, and resolves the common small ones better. Four ways to
choose it:

max         nothing is clipped
percentile  all but one magnitude in ten thousand are kept (99.99 %)
mse         the mean squared error of rounding and clipping is smallest
entropy     the rounded distribution tells least from the true one (Kullback-Leibler, as TensorRT's
            calibrator had it, Migacz, "8-bit inference with TensorRT", GTC 2017)
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.histograms import BINS, Histogram
from trtdet.calibration.quantize import LEVELS

Method = Literal["max", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 0.9999
_CANDIDATES = 128  # limits that `mse` tries, as shares of the largest magnitude
_SHORTEST = 128  # bins that `entropy` keeps at least: one per level


def choose_limit(histogram: Histogram, method: Method) -> float:
    """The limit for one tensor; 0 where it was 0 throughout."""
    if histogram.largest == 0.0:
        return 0.0
    choose = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}
    if method not in choose:
        return histogram.largest
    return min(choose[method](histogram), histogram.largest)


def _percentile(histogram: Histogram) -> float:
    total = np.cumsum(histogram.counts)
    bins = int(np.searchsorted(total, PERCENTILE * total[-1])) + 1
    return bins * histogram.limit / BINS


def _mse(histogram: Histogram) -> float:
    used = histogram.counts > 0
    middles, counts = histogram.middles()[used], histogram.counts[used].astype(np.float64)
    limits = histogram.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    errors = [float(counts @ _squared_error(middles, limit)) for limit in limits]
    return float(limits[int(np.argmin(errors))])


def _squared_error(middles: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Of clipping, and of rounding: uniform within a step, but what is small becomes 0."""
    rounding = np.minimum((limit / LEVELS) ** 2 / 12.0, middles**2)
    return np.where(middles > limit, (middles - limit) ** 2, rounding)


def _entropy(histogram: Histogram) -> float:
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]  # zeros, of a ReLU for instance, are exact at any limit
    last = int(np.flatnonzero(histogram.counts)[-1]) + 1
    best, chosen = np.inf, last
    for kept in range(min(_SHORTEST, last), last + 1):
        divergence = _divergence(counts, kept)
        if divergence < best:
            best, chosen = divergence, kept
    return chosen * histogram.limit / BINS


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """Kullback-Leibler, of the first `kept` bins with the rest clipped into the last, rounded."""
    true = counts[:kept].copy()
    true[-1] += counts[kept:].sum()
    level = np.arange(kept) * (LEVELS + 1) // kept  # of each bin
    filled = counts[:kept] > 0
    share = np.bincount(level[filled], counts[:kept][filled], minlength=LEVELS + 1)
    bins = np.bincount(level[filled], minlength=LEVELS + 1)
    rounded = np.zeros(kept)
    rounded[filled] = share[level[filled]] / bins[level[filled]]
    if not rounded.any() or (true[~filled] > 0).any():
        return np.inf
    true, rounded = true / true.sum(), rounded / rounded.sum()
    some = true > 0
    return float(np.sum(true[some] * np.log(true[some] / rounded[some])))
