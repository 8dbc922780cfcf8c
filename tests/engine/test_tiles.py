"""The plan of tiles, for every size of image: nothing counted twice, nothing read from nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trtdet.engine.tiles import Blocks, Span, Tiling, plan_tiles


@st.composite
def tilings(draw) -> Tiling:
    stride = draw(st.sampled_from([1, 2, 8, 32]))
    halo = stride * draw(st.integers(0, 12))
    tile = 2 * halo + stride + draw(st.integers(0, 20 * stride))
    blocks = draw(st.none() | st.builds(Blocks, st.integers(20, 300), st.integers(10, 200)))
    return Tiling(stride, halo, tile, channels=1, blocks=blocks)


SIDES = st.integers(1, 700)
AS_BUILT = Tiling(stride=8, halo=56, tile=640, channels=2048)


def axes(height: int, width: int, tiling: Tiling) -> tuple[list[Span], list[Span]]:
    """The plan's rows and columns, checked to be the same in every tile row and column."""
    tiles = list(plan_tiles(height, width, tiling))
    columns = []
    for tile in tiles:
        if (tile.rows.start, tile.rows.stop) != (tiles[0].rows.start, tiles[0].rows.stop):
            break
        columns.append(tile.columns)
    rows = [tile.rows for tile in tiles[:: len(columns)]]
    grid = [(row.start, row.stop, c.start, c.stop) for row in rows for c in columns]
    assert grid == [(t.rows.start, t.rows.stop, t.columns.start, t.columns.stop) for t in tiles]
    return rows, columns


def cut_sides(height: int, width: int, tiling: Tiling) -> tuple[int, int]:
    """The sides of a full block, by GANimageDetection's rule."""
    blocks = tiling.blocks
    if blocks is not None and height > blocks.over and width > blocks.over:
        return blocks.side, blocks.side
    return height, width


def owned(span: Span, block_start: int, stride: int) -> tuple[list[int], np.ndarray]:
    """The cells of its block that a span owns, and their weights."""
    offset, rest = divmod(span.start - block_start, stride)
    assert rest == 0  # its cells are the block's cells
    cells = np.flatnonzero(span.weights)
    return [int(cell) + offset for cell in cells], span.weights[cells]


@given(SIDES, SIDES, tilings())
@settings(max_examples=200, deadline=None)
@example(641, 640, AS_BUILT)
@example(1, 1, AS_BUILT)
@example(1537, 1537, Tiling(8, 56, 640, 2048, Blocks(1536, 1024)))
def test_every_cell_of_every_block_is_owned_once_and_read_whole(height, width, tiling):
    for length, block, spans in zip(
        (height, width),
        cut_sides(height, width, tiling),
        axes(height, width, tiling),
        strict=True,
    ):
        found: dict[int, list[int]] = {}
        for span in spans:
            first = span.start // block * block
            end = min(first + block, length)
            assert first <= span.start < span.stop <= end  # no tile leaves its block
            assert span.stop - span.start <= tiling.tile
            assert len(span.weights) == -(-(span.stop - span.start) // tiling.stride)
            cells, weights = owned(span, first, tiling.stride)
            assert cells == list(range(cells[0], cells[-1] + 1))
            # What a cell reads reaches a halo beyond its own pixels, or the block's border.
            left, right = first + cells[0] * tiling.stride, first + (cells[-1] + 1) * tiling.stride
            assert span.start <= max(first, left - tiling.halo)
            assert span.stop >= min(end, right + tiling.halo)
            # A block's cells share its part of the pixels.
            share = (end - first) / length / -(-(end - first) // tiling.stride)
            np.testing.assert_allclose(weights, share, rtol=1e-6)
            found.setdefault(first, []).extend(cells)
        assert list(found) == list(range(0, length, block))
        for first, cells in found.items():
            size = min(block, length - first)
            assert cells == list(range(-(-size // tiling.stride)))


@given(SIDES, SIDES, tilings())
@settings(max_examples=100, deadline=None)
def test_weights_sum_to_1(height, width, tiling):
    total = sum(
        float(tile.rows.weights.sum(dtype=np.float64) * tile.columns.weights.sum(dtype=np.float64))
        for tile in plan_tiles(height, width, tiling)
    )
    assert total == pytest.approx(1, rel=1e-5)


@given(SIDES, SIDES, tilings())
@settings(max_examples=100, deadline=None)
def test_tiles_are_no_more_than_they_must_be(height, width, tiling):
    """An image that fits is one tile, and one that does not gets tiles of about equal size."""
    sides = cut_sides(height, width, tiling)
    for length, block, spans in zip(
        (height, width), sides, axes(height, width, tiling), strict=True
    ):
        first_block = [span for span in spans if span.start < block]
        size = min(block, length)
        assert (len(first_block) == 1) == (size <= tiling.tile)
        core = (tiling.tile - 2 * tiling.halo) // tiling.stride * tiling.stride
        if len(first_block) > 1:
            between = -(-size // tiling.stride) * tiling.stride - 2 * tiling.halo
            assert len(first_block) == max(2, -(-between // core))


class TestBlocks:
    tiling = Tiling(8, 56, 4096, 2048, Blocks(over=1536, side=1024))

    def test_both_sides_above_are_cut_and_weighted_by_area(self):
        tiles = list(plan_tiles(2500, 1600, self.tiling))
        assert [(t.rows.start, t.rows.stop, t.columns.start, t.columns.stop) for t in tiles] == [
            (0, 1024, 0, 1024),
            (0, 1024, 1024, 1600),
            (1024, 2048, 0, 1024),
            (1024, 2048, 1024, 1600),
            (2048, 2500, 0, 1024),
            (2048, 2500, 1024, 1600),
        ]
        for tile in tiles:
            area = (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
            weight = tile.rows.weights.sum() * tile.columns.weights.sum()
            assert weight == pytest.approx(area / (2500 * 1600), rel=1e-5)

    @pytest.mark.parametrize("size", [(2500, 1536), (1536, 2500), (1536, 1536), (4000, 10)])
    def test_one_side_alone_is_not(self, size):
        assert len(list(plan_tiles(*size, self.tiling))) == 1

    def test_large_blocks_are_tiled_like_images(self):
        small = Tiling(8, 56, 640, 2048, Blocks(over=1536, side=1024))
        cut = list(plan_tiles(2048, 2048, small))
        alone = list(plan_tiles(1024, 1024, small))
        assert len(cut) == 4 * len(alone) == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": 0}, "stride of 0"),
        ({"channels": 0}, "no tiling has"),
        ({"halo": -8}, "halo of -8"),
        ({"halo": 57}, "halo of 57"),
        ({"tile": 119}, "at least 120"),
    ],
)
def test_a_tiling_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**{"stride": 8, "halo": 56, "tile": 640, "channels": 4, **fields})


def test_the_smallest_tile_works():
    rows, columns = axes(500, 300, Tiling(8, 56, 120, 4))
    assert all(span.stop - span.start <= 120 for span in [*rows, *columns])
