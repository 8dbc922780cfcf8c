"""What values a network's tensors take, image after image, in bounded memory.

A histogram of magnitudes has 2,048 bins over [0, limit], and its limit is a power of two: when a
larger value comes, neighbours are merged and the limit doubles. The counts therefore do not depend
on the order of the images, and those of two machines can be added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 2048
_SMALLEST = 2.0**-40  # the first limit: below, everything is in one bin

Counts = NDArray[np.int64]


@dataclass
class Histogram:
    """Of the magnitudes of one tensor."""

    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = _SMALLEST
    largest: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a tensor's values. Raises ValueError where one is no number."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError("a value is infinite or no number")
        self._reach(largest)
        bins = np.multiply(magnitudes, np.float32(BINS / self.limit)).astype(np.int32)
        np.minimum(bins, BINS - 1, out=bins)  # what float32 rounds up to the limit
        self.counts += np.bincount(bins, minlength=BINS)
        self.largest = max(self.largest, largest)

    def middles(self) -> NDArray[np.float64]:
        """The magnitude in the middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.limit / BINS), np.float64)

    def _reach(self, largest: float) -> None:
        while self.limit <= largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.limit *= 2


@dataclass
class Activations:
    """What was seen of a network so far."""

    histograms: dict[str, Histogram] = field(default_factory=dict)  # of the tensors to quantise
    largest: dict[str, float] = field(default_factory=dict)  # magnitudes, of any others
    images: int = 0

    def add(self, values: Mapping[str, NDArray[np.float32]], largest: Mapping[str, float]) -> None:
        """One image's tensors. Raises ValueError, with the tensor, for what is no number."""
        for name, tensor in values.items():
            try:
                self.histograms.setdefault(name, Histogram()).add(tensor)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for name, magnitude in largest.items():
            self.largest[name] = max(self.largest.get(name, 0.0), magnitude)
        self.images += 1

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """For a file: what `from_arrays` reads."""
        names, others = list(self.histograms), list(self.largest)
        each = list(self.histograms.values())
        return {
            "tensors": np.array(names, np.str_),
            "counts": np.array([one.counts for one in each], np.int64).reshape(-1, BINS),
            "limits": np.array([one.limit for one in each], np.float64),
            "maxima": np.array([one.largest for one in each], np.float64),
            "others": np.array(others, np.str_),
            "largest": np.array([self.largest[name] for name in others], np.float64),
            "images": np.array(self.images),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Activations:
        """The inverse of `to_arrays`. Raises KeyError or ValueError for what it did not write."""
        columns = (arrays["tensors"], arrays["counts"], arrays["limits"], arrays["maxima"])
        histograms = {
            str(name): Histogram(np.array(counts, np.int64), float(limit), float(largest))
            for name, counts, limit, largest in zip(*columns, strict=True)
        }
        others = zip(arrays["others"], arrays["largest"], strict=True)
        largest = {str(name): float(value) for name, value in others}
        return Activations(histograms, largest, int(arrays["images"]))
