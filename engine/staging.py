"""A batch of images of any size in one buffer, as the kernels of `preprocess.cu` read it.

    IMAGE x batch │ tables and pixels, in the order in which they came

Many threads fill it at once: only the choice of a place for pixels is guarded, not their copy.
An image that the buffer cannot hold, or the device's temporary memory, is brought to the detector's
size on the host, to the same bytes; room for that is kept for every place of the batch.

A stream then does, each kernel with the addresses (staging, temp, output):

    launch = staging.seal()
    upload buffer[: launch.upload_bytes]
    for kernel, blocks in zip(KERNELS, launch.blocks):
        if blocks: kernel<<<(blocks, batch), launch.threads>>>(staging, temp, output)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.coefficients import Axis
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.engine.resample import Plan, View, gpu_recipe
from trtdet.engine.steps import Rgb
from trtdet.errors import ImageError

KERNELS = ("resize_first", "resize_second", "place_views")
THREADS = 256  # of a block
MOST_BLOCKS = 4096  # along x: the kernels go round; beside a large image few of a small one idle
MOST_IMAGES = 65_535  # along y: CUDA's limit

# `struct Pass` and `struct Image` of preprocess.cu, byte for byte, and its constants.
COLUMNS, ROWS = 1, 2
LINES = 4
MAX_VIEWS = 10
_PASS = np.dtype(
    [(name, np.int64) for name in ("source", "target", "table")]
    + [(name, np.int32) for name in ("axis", "rows", "columns", "outputs")],
    align=True,
)
IMAGE = np.dtype(
    [("first", _PASS), ("second", _PASS), ("pixels", np.int64)]
    + [(name, np.int32) for name in ("in_temp", "rows", "columns", "views", "height", "width")]
    + [(name, np.int32, MAX_VIEWS) for name in ("top", "left", "step")],
    align=True,
)
_NO_PASS = (0,) * 7

_ALIGNMENT = 16  # bytes; the tables need 4


@dataclass(frozen=True)
class Launch:
    """What a filled buffer takes: how much of it to upload, and the grids."""

    upload_bytes: int  # from the start of the buffer
    blocks: tuple[int, int, int]  # of KERNELS, along x; along y one per image; 0: nothing to do
    threads: int = THREADS


def staging_bytes(geometry: Geometry, batch: int, image_bytes: int) -> int:
    """The buffer for images that take `image_bytes` on average, their tables included.

    With 0 it holds a batch that was brought to its size on the host.
    """
    return _header_bytes(batch) + batch * _aligned(max(_prepared_bytes(geometry), image_bytes))


def temp_bytes(geometry: Geometry, batch: int, image_bytes: int) -> int:
    """The device's memory between the kernels for such images, from 1:4 to 4:1."""
    recipe, side, most = gpu_recipe(geometry), max(2, math.isqrt(image_bytes // 3)), 0
    for height, width in ((side, side), (2 * side, side // 2), (side // 2, 2 * side)):
        with suppress(ImageError):
            if recipe and (plan := recipe.plan(height, width)):
                most = max(most, sum(_temp_sizes(plan)))
    return batch * most


class Staging:
    """One batch over a flat `buffer` of the caller's, uint8, page-locked where that matters.

    A place is black until something is put there, which stays until `reset`. `load`, `put` and
    `blank` may be called from many threads at once, for different places.
    """

    def __init__(
        self, buffer: NDArray[np.uint8], geometry: Geometry, batch: int, *, temp_bytes: int
    ):
        """`temp_bytes` is the device's memory between the kernels.

        Raises ValueError for a geometry that gives no bytes of one size, and for a buffer that is
        too small, see `staging_bytes`.
        """
        if geometry.dtype is not np.uint8 or not 1 <= batch <= MOST_IMAGES:
            raise ValueError(f"the kernels make no batches of {batch} in {geometry.dtype}")
        flat = buffer.ndim == 1 and buffer.dtype == np.uint8 and buffer.flags.c_contiguous
        if not flat or buffer.size < staging_bytes(geometry, batch, 0):
            raise ValueError(f"{buffer.size} bytes do not hold a batch of {batch}")
        self._buffer, self._batch, self._temp_bytes = buffer, batch, temp_bytes
        self._geometry, self._recipe = geometry, gpu_recipe(geometry)
        self._input = (geometry.views, *geometry.fixed_size)
        self._room = _aligned(_prepared_bytes(geometry))  # for a place that has nothing yet
        self._images = buffer[: batch * IMAGE.itemsize].view(IMAGE)
        self._lock = Lock()
        self.reset()

    def reset(self) -> None:
        """Every place is empty again."""
        self._images[:] = self._descriptor()
        with self._lock:
            self._restart()

    def load(self, position: int, rgb: Rgb) -> None:
        """A decoded image [h, w, 3] into a place; if that raises ImageError, it is as it was."""
        plan = self._recipe.plan(*rgb.shape[:2]) if self._recipe else None
        if plan is None or not self._load_to_resize(position, rgb, plan):
            self.put(position, apply_geometry(self._geometry, rgb))

    def put(self, position: int, views: Pixels) -> None:
        """An image's inputs, uint8 [views, H, W, 3], or [1, H, W, 3] that stands for all views."""
        count, height, width = self._input
        shapes = [(number, height, width, 3) for number in (1, count)]
        if views.dtype != np.uint8 or views.shape not in shapes:
            raise ValueError(f"{views.dtype} {list(views.shape)} is no input of {self._geometry}")
        with self._lock:
            offset = self._take(position, views.nbytes)
        self._pixels(offset, views.shape)[:] = views
        # One below the other, cut apart again; a single one is cut for every view.
        cuts = [View(view % len(views) * height, 0) for view in range(count)]
        self._images[position] = self._descriptor(offset, len(views) * height, width, cuts)

    def blank(self, position: int) -> None:
        """Black in that place, whatever was there."""
        self._images[position] = self._descriptor()
        with self._lock:
            self._seen.discard(position)
            if not self._seen:  # a batch that failed as a whole is not run, and not reset
                self._restart()

    def seal(self) -> Launch:
        """What to launch for what is there; until `reset` nothing may be added."""
        blocks = [int(_pass_blocks(self._images[name]).max()) for name in ("first", "second")]
        count, height, _width = self._input
        first, second, place = (min(MOST_BLOCKS, each) for each in (*blocks, count * height))
        return Launch(self._used, (first, second, place))

    def _load_to_resize(self, position: int, rgb: Rgb, plan: Plan) -> bool:
        """The pixels that the plan reads, if there is room for them and for what comes of them."""
        shape = (plan.rows.source, plan.columns.source, 3)
        tables = {each.axis: each.table for each in plan.passes}
        sizes = _temp_sizes(plan)
        with self._lock:
            new = {axis: table for axis, table in tables.items() if axis not in self._tables}
            size = sum(_aligned(table.nbytes) for table in new.values()) + math.prod(shape)
            if self._temp_used + sum(sizes) > self._temp_bytes or not self._fits(position, size):
                return False
            for axis, table in new.items():  # small, and others may refer to them at once
                at = self._take(position, table.nbytes)
                self._pixels(at, (table.nbytes,))[:] = table.view(np.uint8).reshape(-1)
                self._tables[axis] = at
            offset = self._take(position, math.prod(shape))
            tables_at = [self._tables[each.axis] for each in plan.passes]
            temp = self._temp_used
            self._temp_used += sum(sizes)
        _copy_bands(rgb[plan.top :, plan.left :], plan, self._pixels(offset, shape))
        passes, source = [], offset
        for each, table_at, temp_size in zip(plan.passes, tables_at, sizes, strict=True):
            kind = ROWS if each.of_rows else COLUMNS
            passes.append(
                (source, temp, table_at, kind, each.rows, each.columns, each.axis.outputs)
            )
            source, temp = temp, temp + temp_size
        self._images[position] = self._descriptor(
            source, plan.rows.outputs, plan.columns.outputs, plan.views, passes
        )
        return True

    def _descriptor(
        self,
        pixels: int = 0,
        rows: int = 0,
        columns: int = 0,
        views: Sequence[View] = (),
        passes: Sequence[tuple[int, ...]] = (),
    ) -> tuple[Any, ...]:
        """An `IMAGE`, whose views are cut from [rows, columns] pixels at an offset."""
        first, second = (*passes, _NO_PASS, _NO_PASS)[:2]
        padding = (0,) * (MAX_VIEWS - len(views))
        return (
            *(first, second, pixels, len(passes) > 0, rows, columns, *self._input),
            (*(view.top for view in views), *padding),
            (*(view.left for view in views), *padding),
            (*(view.step for view in views), *padding),
        )

    def _restart(self) -> None:
        """Under the lock: the memory is free again."""
        self._used, self._temp_used = _header_bytes(self._batch), 0
        self._tables: dict[Axis, int] = {}  # where each stands
        self._served: set[int] = set()  # places that need no more room
        self._seen: set[int] = set()  # places that are not blank

    def _fits(self, position: int, size: int) -> bool:
        """Under the lock: whether every other place can still have its room."""
        waiting = self._batch - len(self._served) - (position not in self._served)
        return self._used + _aligned(size) + waiting * self._room <= len(self._buffer)

    def _take(self, position: int, size: int) -> int:
        """Under the lock: the offset of so many bytes."""
        if not self._fits(position, size):
            raise ValueError(f"place {position} was filled before: reset the batch first")
        offset, self._used = self._used, self._used + _aligned(size)
        self._served.add(position)
        self._seen.add(position)
        return offset

    def _pixels(self, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return self._buffer[offset : offset + math.prod(shape)].reshape(shape)


def _copy_bands(rgb: Rgb, plan: Plan, target: NDArray[np.uint8]) -> None:
    """The bands of an image's rows and columns, side by side."""
    y = 0
    for top, bottom in plan.rows.bands:
        x = 0
        for left, right in plan.columns.bands:
            target[y : y + bottom - top, x : x + right - left] = rgb[top:bottom, left:right]
            x += right - left
        y += bottom - top


def _temp_sizes(plan: Plan) -> list[int]:
    """What each pass leaves in the temporary memory, in bytes."""
    return [_aligned(math.prod(each.shape) * 3) for each in plan.passes]


def _pass_blocks(passes: NDArray[Any]) -> NDArray[Any]:
    """How many blocks have something to do, for each image."""
    by_rows = np.where(passes["axis"] == ROWS, passes["outputs"], 0)
    return np.where(passes["axis"] == COLUMNS, -(-passes["rows"] // LINES), by_rows)


def _header_bytes(batch: int) -> int:
    return _aligned(batch * IMAGE.itemsize)


def _prepared_bytes(geometry: Geometry) -> int:
    return geometry.views * math.prod(geometry.fixed_size) * 3


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
