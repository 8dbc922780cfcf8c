"""Pillow's resize in whole numbers, for kernels that have to give its very bytes.

Pillow resizes one axis after the other, each pass a sum of bytes times weights of 22 bits, rounded
to bytes again (src/libImaging/Resample.c). The weights are computed here in Pillow's own order of
operations, so that what is left for a kernel is exact on any machine.

Which axis comes first is up to the installed Pillow: until 12.1 the columns, in 12.2 and 12.3 the
rows of very high images, since 13 the rows where that is less work. It is asked with small
pictures; if it does none of these, or has other weights, nobody but Pillow itself can resize.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.resize import PillowFilter, resize_pillow
from trtdet.engine.steps import Rgb

PRECISION_BITS = 22

# (height, width, new height, new width): where the orders part, and just before.
_PROBES = (
    *((61, 30, 20, 10), (60, 30, 20, 10), (9, 8, 8, 19), (8, 8, 9, 19), (30, 61, 9, 8)),
    *((201, 2, 150, 7), (200, 2, 199, 7), (201, 2, 202, 7)),
)

Range = tuple[int, int]  # [start, stop) in pixels
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
PillowOrder = Callable[[int, int, int, int], bool]  # (height, width, new height, new width)


@dataclass(frozen=True)
class Axis:
    """How `size` pixels along one axis become some of `out`. Equal ones have equal numbers.

    `spans` are the outputs that are computed, `bands` the pixels that they read, both in order.
    The table counts either as if they stood side by side.
    """

    size: int
    out: int
    resampling: PillowFilter
    spans: tuple[Range, ...]
    bands: tuple[Range, ...] = field(compare=False)
    # int32 [2 + taps, outputs]: the first pixel of each output, how many there are, their weights.
    # None: the length stays, and the bands are the spans.
    table: NDArray[np.int32] | None = field(compare=False)

    @cached_property
    def source(self) -> int:
        """How many pixels are read."""
        return _length(self.bands)

    @cached_property
    def outputs(self) -> int:
        """How many pixels are computed."""
        return _length(self.spans)

    def index(self, output: int) -> int:
        """Where an output stands among those that are computed; one before the first, before it."""
        before = (min(stop, output) - start for start, stop in self.spans if start < output)
        return min(output, 0) + sum(before)


@lru_cache(maxsize=512)  # a photograph's table has some 30 KiB, that of 65,535 pixels up to 1.5 MiB
def resample_axis(size: int, out: int, resampling: PillowFilter, spans: tuple[Range, ...]) -> Axis:
    """From `size` pixels to those of `out` in `spans`: ranges in order with gaps between them."""
    if size == out:
        return Axis(size, out, resampling, spans, spans, None)
    outputs = np.concatenate([np.arange(start, stop) for start, stop in spans])
    first, count, weights = coefficients(size, out, resampling, outputs)
    bands = union(zip(first.tolist(), (first + count).tolist(), strict=True))
    starts = np.array([start for start, _stop in bands])
    lengths = np.array([stop - start for start, stop in bands])
    before = np.cumsum(lengths) - lengths
    band = np.searchsorted(starts, first, side="right") - 1
    table = np.vstack([first - (starts - before)[band], count, weights]).astype(np.int32)
    return Axis(size, out, resampling, spans, bands, table)


def coefficients(
    size: int, out: int, resampling: PillowFilter, outputs: Integers
) -> tuple[Integers, Integers, NDArray[np.int32]]:
    """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` for some outputs [n] of `out`.

    Returns the first pixel of each [n], how many there are [n], and their weights [taps, n], which
    are 0 beyond that many. Every operation is one of IEEE doubles, in Pillow's order.
    """
    support, weigh = _FILTERS[resampling]
    scale = size / out
    stretch = max(scale, 1.0)
    support *= stretch
    center = (outputs + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support + 0.5).astype(np.int64), size) - first
    tap = np.arange(count.max())[:, None]
    weights = weigh((tap + first - center + 0.5) * (1.0 / stretch))
    weights[tap >= count] = 0.0
    total = np.add.accumulate(weights, axis=0)[-1]  # one after the other; a sum would add in pairs
    np.divide(weights, total, out=weights, where=total != 0.0)
    scaled = weights * float(1 << PRECISION_BITS)
    return first, count, np.where(weights < 0, -0.5 + scaled, 0.5 + scaled).astype(np.int32)


@cache
def pillow_order() -> PillowOrder | None:
    """Whether the installed Pillow resizes the rows first; None if its bytes are not ours."""
    return next((order for order in (_since_13, _in_12_2, _until_12_1) if _is_pillows(order)), None)


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same pixels as ranges in order, none of which touches the next."""
    union: list[Range] = []
    for start, stop in sorted(ranges):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(stop, union[-1][1]))
        else:
            union.append((start, stop))
    return tuple(union)


def _since_13(height: int, width: int, new_height: int, new_width: int) -> bool:
    return height - new_height > max(0, 2 * (width - new_width))


def _in_12_2(height: int, width: int, new_height: int, new_width: int) -> bool:
    return height > 100 * width and new_height < height


def _until_12_1(height: int, width: int, new_height: int, new_width: int) -> bool:
    return False


def _is_pillows(order: PillowOrder) -> bool:
    """Whether an order gives Pillow's bytes, on either side of where the two orders part."""
    rng = np.random.default_rng(13)
    for height, width, new_height, new_width in _PROBES:
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        passes = [(0, new_height), (1, new_width)]
        if not order(height, width, new_height, new_width):
            passes.reverse()
        for resampling in _FILTERS:
            ours = rgb
            for axis, out in passes:
                ours = _resize_along(axis, ours, out, resampling)
            if not np.array_equal(ours, resize_pillow(rgb, new_height, new_width, resampling)):
                return False
    return True


def _resize_along(axis: int, rgb: Rgb, out: int, resampling: PillowFilter) -> Rgb:
    first, count, weights = coefficients(rgb.shape[axis], out, resampling, np.arange(out))
    matrix = np.zeros((out, rgb.shape[axis]), np.int64)
    for row, (start, length) in enumerate(zip(first, count, strict=True)):
        matrix[row, start : start + length] = weights[:length, row]
    sums = np.moveaxis(np.tensordot(matrix, rgb, (1, axis)), 0, axis)
    rounded = (sums + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS
    return rounded.clip(0, 255).astype(np.uint8)


def _bilinear(x: Floats) -> Floats:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: Floats) -> Floats:
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Floats) -> Floats:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Floats) -> Floats:
    x = x * math.pi
    # The C library's sine, as in Pillow: NumPy's own may differ in the last place.
    sines = np.fromiter(map(math.sin, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)
    return np.divide(sines, x, out=np.ones_like(x), where=x != 0.0)


_FILTERS: dict[PillowFilter, tuple[float, Callable[[Floats], Floats]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}


def _length(ranges: tuple[Range, ...]) -> int:
    return sum(stop - start for start, stop in ranges)
