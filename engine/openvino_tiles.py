"""A fully convolutional network at native resolution on OpenVINO: one image a slot, tile by tile.

The tiles of an image run one after the other, each starting the next from its callback, and hand
on the sum of pooled features; images run beside each other, one per stream. Memory therefore
depends on the tile's size and the number of streams, but for the decoded images themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, OUTPUT_NAME, POOLED, ROWS
from trtdet.engine.geometry import Geometry, Pixels
from trtdet.engine.import_openvino import ov
from trtdet.engine.machine import available_memory_bytes, core_count
from trtdet.engine.openvino import OpenVinoRequests
from trtdet.engine.tiles import Tile, Tiling, plan_tiles

# Decoded images in flight per stream: one runs while the next is read.
IMAGES_AHEAD = 2

# Tiles take at most one part in so many of the memory that is free: others live here, too.
MEMORY_SHARE = 2


class OpenVinoTileSession(OpenVinoRequests):
    """See `trtdet.engine.backends.Session`. The batch is one image of any size."""

    def __init__(
        self,
        graph: Path,
        geometry: Geometry,
        tiling: Tiling,
        *,
        slots: int | None = None,
        streams: int | None = None,
    ):
        affordable = available_memory_bytes() // (MEMORY_SHARE * tiling.tile_bytes)
        streams = max(1, min(streams or core_count(), affordable))
        slots = slots or IMAGES_AHEAD * streams
        shapes = {
            INPUT_NAME: [1, -1, -1, 3],
            ROWS: [-1],
            COLUMNS: [-1],
            CARRY: [1, tiling.channels],
        }
        super().__init__(graph, geometry, shapes, batch=1, slots=slots, streams=streams)
        self._tiling = tiling
        self._images: list[Pixels | None] = [None] * slots
        self._tiles: list[Iterator[Tile]] = [iter(()) for _ in range(slots)]

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image [1, H, W, 3] of any size into the slot; `position` is 0."""
        self._images[slot] = views[position:]

    def blank(self, slot: int, position: int) -> None:
        """Let go of the slot's image."""
        self._images[slot] = None

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [1, K]."""
        logits: NDArray[np.float32] = self._requests[slot].get_tensor(OUTPUT_NAME).data
        return logits.reshape(1, -1)

    def start(self, slot: int) -> None:
        """Run the slot's image, from its first tile."""
        image = self._images[slot]
        if image is None:
            raise RuntimeError(f"slot {slot} has no image")
        self._tiles[slot] = plan_tiles(image.shape[1], image.shape[2], self._tiling)
        nothing = np.zeros((1, self._tiling.channels), np.float32)
        self._run_tile(slot, next(self._tiles[slot]), nothing)

    def _run_tile(self, slot: int, tile: Tile, carry: NDArray[np.float32]) -> None:
        image = self._images[slot]
        assert image is not None  # `start` had one
        rows, columns = tile.rows, tile.columns
        pixels = image[:, rows.start : rows.stop, columns.start : columns.stop]
        request = self._requests[slot]
        # Copies: the request keeps them, and the image is a read-only view as often as not.
        request.set_tensor(INPUT_NAME, ov.Tensor(np.array(pixels, order="C")))
        request.set_tensor(ROWS, ov.Tensor(rows.weights))
        request.set_tensor(COLUMNS, ov.Tensor(columns.weights))
        request.set_tensor(CARRY, ov.Tensor(carry))
        self._run(slot)

    def _ended(self, slot: int) -> None:
        tile = next(self._tiles[slot], None)
        if tile is not None:
            self._run_tile(slot, tile, self._requests[slot].get_tensor(POOLED).data.copy())
            return
        self._images[slot] = None
        super()._ended(slot)
