"""Images through the engine's kernels, and nothing else: what is checked against Pillow, and timed.

The buffers are made for the images, so that none of them goes to the host for want of room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.cuda import Gpu
from trtdet.engine.geometry import Geometry
from trtdet.engine.resample import Plan, gpu_recipe
from trtdet.engine.staging import IMAGE, KERNELS, Launch, Staging, staging_bytes
from trtdet.engine.steps import Rgb

_SLACK_BYTES = 64  # for the alignment of what stands side by side


@dataclass(frozen=True)
class Traffic:
    """Bytes that the kernels read and write for one image, each once."""

    read: int
    written: int

    @property
    def moved(self) -> int:
        """All of them."""
        return self.read + self.written


class Resizer:
    """A batch of images on a GPU: `load`, `upload`, `launch`, `download`, in this order.

    Its memory lives as long as `stack`; the GPU is current. Raises BackendError or the driver's
    errors.
    """

    def __init__(
        self,
        gpu: Gpu,
        stack: ExitStack,
        cubin: bytes,
        geometry: Geometry,
        sizes: Sequence[tuple[int, int]],
    ):
        """`sizes` are (height, width) of the images of a batch."""
        self._gpu, self._batch, self._geometry = gpu, len(sizes), geometry
        plans = [plan for size in sizes if (plan := plan_of(geometry, size)) is not None]
        image = max((_staged_bytes(plan) for plan in plans), default=0)
        temp = sum(_temp_bytes(plan) for plan in plans)
        self.stream = stack.enter_context(gpu.stream())
        self._buffer = stack.enter_context(gpu.pinned(staging_bytes(geometry, self._batch, image)))
        self._staging = Staging(self._buffer, geometry, self._batch, temp_bytes=temp)
        shape = (self._batch * geometry.views, *geometry.fixed_size, 3)
        self._output = stack.enter_context(gpu.pinned(math.prod(shape)))
        self._shape = shape
        addresses = (self._buffer.nbytes, temp, self._output.nbytes)
        self._on_device = [stack.enter_context(gpu.memory(size)) for size in addresses]
        self._kernels: list[Any] = gpu.kernels(cubin, KERNELS, "P" * len(addresses))
        self._launch = Launch(0, (0, 0, 0))

    def load(self, images: Sequence[Rgb | None]) -> int:
        """A batch; None leaves its place black. How many the kernels resize."""
        self._staging.reset()
        for position, rgb in enumerate(images):
            if rgb is None:
                self._staging.blank(position)
            else:
                self._staging.load(position, rgb)
        self._launch = self._staging.seal()
        header = self._buffer[: self._batch * IMAGE.itemsize].view(IMAGE)
        return int(header["in_temp"].sum())

    @property
    def upload_bytes(self) -> int:
        """What the batch uploads."""
        return self._launch.upload_bytes

    def upload(self) -> None:
        """The batch to the device."""
        self._gpu.upload(self._on_device[0], self._buffer[: self.upload_bytes], self.stream)

    def launch(self) -> None:
        """The kernels."""
        for kernel, blocks in zip(self._kernels, self._launch.blocks, strict=True):
            if blocks:
                grid, block = (blocks, self._batch), (self._launch.threads, 1, 1)
                kernel.prepared_async_call(grid, block, self.stream, *self._on_device)

    def download(self) -> NDArray[np.uint8]:
        """The network's input: uint8 [batch, views, H, W, 3]."""
        self._gpu.download(self._output, self._on_device[2], self.stream)
        self.stream.synchronize()
        views = self._geometry.views
        pixels = self._output.reshape(self._batch, views, *self._shape[1:])
        return np.array(pixels, np.uint8)

    def poison(self) -> None:
        """Fill the output, so that what a kernel leaves out is seen."""
        self._output[:] = 0x5A
        self._gpu.upload(self._on_device[2], self._output, self.stream)


def plan_of(geometry: Geometry, size: tuple[int, int]) -> Plan | None:
    """What the kernels do for an image of a size; None where the host does it."""
    recipe = gpu_recipe(geometry)
    return recipe.plan(*size) if recipe else None


def traffic_of(geometry: Geometry, size: tuple[int, int]) -> Traffic | None:
    """What has to be moved for one image of a size; None where the host does it."""
    plan = plan_of(geometry, size)
    if plan is None:
        return None
    pixels = plan.rows.source * plan.columns.source * 3
    read, written = 0, 0
    for each in plan.passes:
        read += pixels + each.table.nbytes
        pixels = math.prod(each.shape) * 3
        written += pixels
    output = geometry.views * math.prod(geometry.fixed_size) * 3
    return Traffic(read + output, written + output)


def _staged_bytes(plan: Plan) -> int:
    tables = sum(each.table.nbytes + _SLACK_BYTES for each in plan.passes)
    return tables + plan.rows.source * plan.columns.source * 3 + _SLACK_BYTES


def _temp_bytes(plan: Plan) -> int:
    return sum(math.prod(each.shape) * 3 + _SLACK_BYTES for each in plan.passes)
