"""A TensorRT plan of a fully convolutional network: images of any size, one a slot, tile by tile.

The plan's profiles span the sizes of a tile, so that no pixel is ever padded. A stream runs the
tiles of its image one after the other; what they came to stays on the device and is carried from
one to the next. While a tile runs, the next is copied into the other half of the pinned memory.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import OnDone
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, OUTPUT_NAME, POOLED, ROWS
from trtdet.engine.cuda import Bytes
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.nvtx import stage
from trtdet.engine.steps import Rgb
from trtdet.engine.tensorrt import GpuOptions
from trtdet.engine.tiles import Tile, Tiling, plan_tiles
from trtdet.engine.workers import Run, Workers
from trtdet.errors import BackendError

TENSORS = (INPUT_NAME, ROWS, COLUMNS, CARRY, POOLED, OUTPUT_NAME)


class TensorRtTileSession:
    """See `trtdet.engine.backends.Session`. The batch is one image of any size.

    It owns the plan.
    """

    def __init__(
        self,
        plan: LoadedPlan,
        geometry: Geometry,
        tiling: Tiling,
        *,
        outputs: int,
        options: GpuOptions | None = None,
    ):
        options = options or GpuOptions()
        self.batch, self.slots = 1, options.slots
        self.name = plan.name
        self.on_done: OnDone = lambda _slot: None
        self.probe_logits: NDArray[np.float32] | None = None  # as this plan was judged with
        self._plan, self._geometry, self._tiling = plan, geometry, tiling
        self._images: list[Pixels | None] = [None] * self.slots
        self._logits = np.zeros((self.slots, 1, outputs), np.float32)
        streams = min(options.streams or self.slots, self.slots)
        self._workers = Workers(plan.gpu, streams, self._open_stream, self._ended)

    def load(self, slot: int, position: int, rgb: Rgb) -> None:
        """A decoded image [h, w, 3] into the slot."""
        self.put(slot, position, apply_geometry(self._geometry, rgb))

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image [1, H, W, 3] of any size into the slot; `position` is 0."""
        self._images[slot] = views[position:]

    def blank(self, slot: int, position: int) -> None:
        """Let go of the slot's image."""
        self._images[slot] = None

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [1, K]."""
        logits: NDArray[np.float32] = self._logits[slot]
        return logits

    def start(self, slot: int) -> None:
        """Run the slot's image as soon as a stream is free."""
        if self._images[slot] is None:
            raise RuntimeError(f"slot {slot} has no image")
        self._workers.start(slot)

    def check(self) -> None:
        """Raise BackendError if the GPU failed."""
        self._workers.check()

    def close(self) -> None:
        """Wait for what runs, and let go of everything."""
        self._workers.close()
        self._plan.close()

    def _ended(self, slot: int) -> None:
        self._images[slot] = None
        self.on_done(slot)

    def _open_stream(self, stack: ExitStack) -> Run:
        """In a stream's own thread: its memory, its context, and what runs a slot with them."""
        outputs = self._logits.shape[-1]
        stream = _TileStream(self._plan, self._tiling, outputs, self._geometry.dtype, stack)

        def run(slot: int) -> None:
            image = self._images[slot]
            assert image is not None  # `start` had one
            self._logits[slot] = stream.run(image)

        return run


class _TileStream:
    """One stream's part: two places for a tile on the host, one on the device."""

    def __init__(
        self,
        plan: LoadedPlan,
        tiling: Tiling,
        outputs: int,
        dtype: type[np.generic],
        stack: ExitStack,
    ):
        self._plan, self._tiling = plan, tiling
        gpu = self._gpu = plan.gpu
        self._dtype = np.dtype(dtype)
        cells = -(-tiling.tile // tiling.stride)
        self._sizes = {
            INPUT_NAME: 3 * tiling.tile**2 * self._dtype.itemsize,
            ROWS: 4 * cells,
            COLUMNS: 4 * cells,
        }
        self._stream = stack.enter_context(gpu.stream())
        self._device = {
            name: stack.enter_context(gpu.memory(size)) for name, size in self._sizes.items()
        }
        self._carry_bytes = 4 * tiling.channels
        self._carries = [stack.enter_context(gpu.memory(self._carry_bytes)) for _ in range(2)]
        self._answer = stack.enter_context(gpu.memory(4 * outputs))
        self._host = [self._pinned(stack) for _ in range(2)]
        self._copied = [gpu.event() for _ in range(2)]
        self._logits = stack.enter_context(gpu.pinned(4 * outputs))
        stack.callback(gpu.drain, self._stream)  # before what it copies from is freed
        self._context = plan.context(eager=False)
        for name, address in {**self._device, OUTPUT_NAME: self._answer}.items():
            self._context.set_tensor_address(name, address)

    def run(self, image: Pixels) -> NDArray[np.float32]:
        """The logits [1, K] of an image [1, H, W, 3]."""
        tiles = plan_tiles(image.shape[1], image.shape[2], self._tiling)
        self._gpu.clear_in(self._carries[0], self._carry_bytes, self._stream)
        for number, tile in enumerate(tiles):
            here = number % 2
            if number > 1:
                with self._gpu.waiting():
                    self._copied[here].synchronize()  # the copy before last has left this place
            self._upload(tile, image, here)
            self._copied[here].record(self._stream)
            self._context.set_tensor_address(CARRY, self._carries[here])
            self._context.set_tensor_address(POOLED, self._carries[1 - here])
            with stage("tile"):
                self._plan.enqueue(self._context, self._stream)
        self._gpu.download(self._logits, self._answer, self._stream)
        with self._gpu.waiting():
            self._stream.synchronize()
        logits: NDArray[np.float32] = self._logits.view(np.float32).reshape(1, -1).copy()
        return logits

    def _upload(self, tile: Tile, image: Pixels, here: int) -> None:
        rows, columns = tile.rows, tile.columns
        parts = {
            INPUT_NAME: image[:, rows.start : rows.stop, columns.start : columns.stop],
            ROWS: rows.weights,
            COLUMNS: columns.weights,
        }
        for name, values in parts.items():
            place = self._host[here][name][: values.nbytes]
            place.view(values.dtype).reshape(values.shape)[...] = values
            self._gpu.upload(self._device[name], place, self._stream)
            if not self._context.set_input_shape(name, values.shape):
                raise BackendError(
                    f"the plan does not take {name} of shape {list(values.shape)}: compile it "
                    "again, `trtdet compile BUNDLE --target current`"
                )

    def _pinned(self, stack: ExitStack) -> dict[str, Bytes]:
        return {
            name: stack.enter_context(self._gpu.pinned(size)) for name, size in self._sizes.items()
        }
