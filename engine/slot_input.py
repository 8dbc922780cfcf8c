"""What decode threads fill: the page-locked side of a slot, and how it reaches the network's input.

`PreparedInput` holds the detector's input, made on the host: a crop uploads its crop and no more.
`RaggedInput` holds decoded pixels of any size, which kernels resize on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trtdet.engine.cuda import Bytes, Gpu
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.engine.resample import gpu_recipe
from trtdet.engine.staging import KERNELS, Staging, staging_bytes, temp_bytes
from trtdet.engine.steps import Rgb
from trtdet.errors import BackendError

Allocate = Callable[[int], Bytes]

# Page-locked memory for decoded pixels: of an image on average, and of a batch at most. What does
# not fit is resized on the host.
IMAGE_BYTES = 3 << 20
BATCH_BYTES = 128 << 20


class SlotInput(Protocol):
    """One slot's images. `load`, `put` and `blank` may be called from many threads at once."""

    def load(self, position: int, rgb: Rgb) -> None:
        """A decoded image [h, w, 3] into place `position` of the batch. Raises ImageError."""

    def put(self, position: int, views: Pixels) -> None:
        """An image's inputs [views, H, W, 3] into its place."""

    def blank(self, position: int) -> None:
        """Black in that place."""

    def reset(self) -> None:
        """The batch has run: every place is free again."""

    def open_device(self, gpu: Gpu, stack: ExitStack, cubin: bytes | None) -> Any:
        """What a stream needs to take such inputs, for as long as `stack` is open."""

    def enqueue(self, gpu: Gpu, device: Any, image: int, stream: Any) -> None:
        """Bring the batch to the device address `image`, in the stream's order."""


class PreparedInput:
    """The network's input [batch * views, H, W, 3] itself."""

    def __init__(self, geometry: Geometry, batch: int, allocate: Allocate):
        self._geometry = geometry
        shape = (batch * geometry.views, *geometry.fixed_size, 3)
        self._bytes = allocate(int(np.prod(shape)) * np.dtype(geometry.dtype).itemsize)
        self._pixels = self._bytes.view(geometry.dtype).reshape(shape)

    def load(self, position: int, rgb: Rgb) -> None:
        """See `SlotInput`."""
        self.put(position, apply_geometry(self._geometry, rgb))

    def put(self, position: int, views: Pixels) -> None:
        """See `SlotInput`."""
        self._pixels[self._places(position)] = views

    def blank(self, position: int) -> None:
        """See `SlotInput`."""
        self._pixels[self._places(position)] = 0

    def reset(self) -> None:
        """See `SlotInput`."""

    def open_device(self, gpu: Gpu, stack: ExitStack, cubin: bytes | None) -> None:
        """See `SlotInput`."""

    def enqueue(self, gpu: Gpu, device: None, image: int, stream: Any) -> None:
        """See `SlotInput`."""
        gpu.upload(image, self._bytes, stream)

    def _places(self, position: int) -> slice:
        return slice(position * self._geometry.views, (position + 1) * self._geometry.views)


@dataclass(frozen=True)
class RaggedDevice:
    """A stream's part of a `RaggedInput`: where the batch goes, and what resizes it."""

    staging: int  # an address
    temp: int
    kernels: list[Any]


class RaggedInput:
    """Decoded pixels of any size, which the kernels of `preprocess.cu` resize."""

    def __init__(self, geometry: Geometry, batch: int, allocate: Allocate):
        image_bytes = min(IMAGE_BYTES, BATCH_BYTES // batch)
        self._temp_bytes = temp_bytes(geometry, batch, image_bytes)
        self._bytes = allocate(staging_bytes(geometry, batch, image_bytes))
        self._staging = Staging(self._bytes, geometry, batch, temp_bytes=self._temp_bytes)
        self._batch = batch
        self.load, self.put = self._staging.load, self._staging.put
        self.blank, self.reset = self._staging.blank, self._staging.reset

    def open_device(self, gpu: Gpu, stack: ExitStack, cubin: bytes | None) -> RaggedDevice:
        """See `SlotInput`."""
        if cubin is None:
            raise BackendError("images cannot be resized on the GPU without its kernels")
        staging = stack.enter_context(gpu.memory(self._bytes.nbytes))
        temp = stack.enter_context(gpu.memory(self._temp_bytes))
        return RaggedDevice(staging, temp, gpu.kernels(cubin, KERNELS, "PPP"))

    def enqueue(self, gpu: Gpu, device: RaggedDevice, image: int, stream: Any) -> None:
        """See `SlotInput`."""
        launch = self._staging.seal()
        gpu.upload(device.staging, self._bytes[: launch.upload_bytes], stream)
        for kernel, blocks in zip(device.kernels, launch.blocks, strict=True):
            if blocks:
                grid, block = (blocks, self._batch), (launch.threads, 1, 1)
                kernel.prepared_async_call(grid, block, stream, device.staging, device.temp, image)


def make_slot_input(
    geometry: Geometry, batch: int, allocate: Allocate, *, resize: bool
) -> SlotInput:
    """The kind that suits a geometry; `resize`: the kernels are at hand."""
    if resize and gpu_recipe(geometry) is not None:
        return RaggedInput(geometry, batch, allocate)
    return PreparedInput(geometry, batch, allocate)
