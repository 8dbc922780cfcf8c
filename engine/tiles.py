"""Native resolution in bounded memory: an image in tiles whose features are those of the whole.

A tile carries a halo at least as wide as the network's receptive field reaches, and starts on a
multiple of its stride, so that every cell of the feature map it owns is computed from the same
pixels as in the whole image; the cells that it does not own have weight 0. The mean over the
cells is a weighted sum of sums, and what follows the mean is computed once, with the last tile.

Only zero padding at the image's own borders, as in the whole image, is ever read by an owned cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blocks:
    """GANimageDetection's rule: an image with both sides above `over` is cut into squares of
    `side` pixels, each seen as an image of its own; their logits are averaged by area."""

    over: int  # pixels
    side: int  # pixels

    def __post_init__(self) -> None:
        if not all(type(value) is int and value >= 1 for value in (self.over, self.side)):
            raise ValueError(f"no blocks have sides of {self.side!r}")


@dataclass(frozen=True)
class Tiling:
    """What the runtime needs to know of a fully convolutional network."""

    stride: int  # pixels from one cell of the feature map to the next
    halo: int  # pixels, a multiple of the stride; a cell reads no further to either side
    tile: int  # pixels, the longest side of what the network is given at once
    channels: int  # of the pooled features
    blocks: Blocks | None = None
    pixel_bytes: int = 1000  # of memory that a tile in flight takes, for each of its pixels, about

    def __post_init__(self) -> None:
        counts = (self.stride, self.tile, self.channels, self.pixel_bytes)
        whole = all(type(value) is int for value in (*counts, self.halo))
        if not whole or min(counts) < 1 or self.halo < 0 or self.halo % self.stride:
            raise ValueError(
                f"no tiling has a stride of {self.stride}, a halo of {self.halo}, tiles of "
                f"{self.tile} and {self.channels} channels of {self.pixel_bytes} bytes"
            )
        if self.tile < 2 * self.halo + self.stride:
            raise ValueError(
                f"tiles of {self.tile} pixels have no room between halos of {self.halo}: "
                f"at least {2 * self.halo + self.stride}"
            )

    def smallest(self) -> Tiling:
        """The same with the smallest tiles that there can be: one cell between two halos."""
        return replace(self, tile=2 * self.halo + self.stride)

    @property
    def tile_bytes(self) -> int:
        """Memory that the largest tile takes while it runs, about."""
        return self.tile**2 * self.pixel_bytes


@dataclass(frozen=True)
class Span:
    """A tile along one axis."""

    start: int  # pixels
    stop: int  # pixels
    weights: NDArray[np.float32]  # of its cells in the mean over the whole axis; 0 outside


@dataclass(frozen=True)
class Tile:
    """A tile: pixels [rows.start : rows.stop, columns.start : columns.stop]."""

    rows: Span
    columns: Span


def plan_tiles(height: int, width: int, tiling: Tiling) -> Iterator[Tile]:
    """The tiles of an image, row by row. Their weights sum to 1."""
    blocks = tiling.blocks
    cut = blocks.side if blocks and min(height, width) > blocks.over else None
    columns = list(_axis(width, cut or width, tiling))
    for row in _axis(height, cut or height, tiling):
        for column in columns:
            yield Tile(row, column)


def _axis(length: int, block: int, tiling: Tiling) -> Iterator[Span]:
    """One axis: every block of it in tiles, each block's mean weighted by its share of pixels."""
    for first in range(0, length, block):
        size = min(block, length - first)
        cells = -(-size // tiling.stride)
        weight = np.float32(size / length / cells)
        for start, stop, own_start, own_stop in _spans(size, cells, tiling):
            weights = np.zeros(-(-(stop - start) // tiling.stride), np.float32)
            offset = start // tiling.stride
            weights[own_start - offset : own_stop - offset] = weight
            yield Span(first + start, first + stop, weights)


def _spans(size: int, cells: int, tiling: Tiling) -> Iterator[tuple[int, int, int, int]]:
    """(start, stop) in pixels and (start, stop) of the owned cells, evenly divided.

    The first and the last tile have a halo on one side only, and own that much more.
    """
    if size <= tiling.tile:
        yield 0, size, 0, cells
        return
    stride, reach = tiling.stride, tiling.halo // tiling.stride
    core = (tiling.tile - 2 * tiling.halo) // stride
    between = cells - 2 * reach  # what tiles of equal cores divide among them
    count = max(2, -(-between // core))
    edges = [0, *(reach + index * between // count for index in range(1, count)), cells]
    for own_start, own_stop in itertools.pairwise(edges):
        start = max(0, (own_start - reach) * stride)
        yield start, min(size, (own_stop + reach) * stride), own_start, own_stop
