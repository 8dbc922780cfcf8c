"""Images as the columns of a batch: names or files in, and, decoded, the networks' own inputs.

    filename    paths or URLs, as str or as bytes       bytes    image files, encoded
    pixels      what a network takes, [views, H, W, 3] a row; `pixels_2`, ... where the members of
                an ensemble see an image differently
    reason      why a row has no pixels, else None

`Decoder` makes the second kind from the first, so that decoding may run apart from inference.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.decode import Limits, check_size_bytes, quiet_decoders
from trtdet.engine.decode_pool import DecodePool
from trtdet.engine.decode_pool import Decoder as FileDecoder
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.engine.locations import join, read_image
from trtdet.engine.pipeline import DEFAULT_LIMITS, decoder_opener
from trtdet.errors import ImageError, InputError

FILENAME, BYTES, PIXELS, REASON = "filename", "bytes", "pixels", "reason"

Batch = dict[str, NDArray[Any]]


def as_columns(batch: Mapping[str, Any]) -> Batch:
    """A batch's columns as arrays; a list is one of objects, or NumPy would cut bytes at a NUL."""
    return {
        name: np.asarray(column, object if isinstance(column, list | tuple) else None)
        for name, column in batch.items()
    }


def row_count(batch: Batch) -> int:
    """The rows of a batch. Raises InputError for one that has no images."""
    for name in (PIXELS, BYTES, FILENAME):
        if name in batch:
            return len(batch[name])
    raise InputError(
        f"the batch has no column '{FILENAME}', '{BYTES}' or '{PIXELS}' "
        f"(it has {', '.join(map(repr, batch)) or 'none'}): name the one with the images so"
    )


def read_row(batch: Batch, row: int, folder: str, max_bytes: int) -> bytes:
    """The row's image file: `bytes`, or what `filename` names. Raises ImageError."""
    if BYTES in batch:
        data = bytes(batch[BYTES][row])
        check_size_bytes(len(data), max_bytes)
        return data
    name = batch[FILENAME][row]
    if not isinstance(name, str | bytes | os.PathLike) or not name:  # of a table: None, or NaN
        raise ImageError("the row has no file name")
    return read_image(join(folder, os.fsdecode(name)), max_bytes=max_bytes)


def pixel_columns(geometries: Iterable[Geometry]) -> dict[Geometry, str]:
    """The column of each way to see an image."""
    different = dict.fromkeys(geometries)
    return {
        geometry: PIXELS if number == 1 else f"{PIXELS}_{number}"
        for number, geometry in enumerate(different, 1)
    }


@dataclass(frozen=True)
class Decoder:
    """A callable: a batch of names or files to one of pixels, other columns as they are."""

    geometries: tuple[Geometry, ...]  # of the bundle, or of an ensemble's members
    folder: str = ""  # names are relative to it
    limits: Limits = DEFAULT_LIMITS

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Decode the batch, one image after the other, each within its limits."""
        quiet_decoders(self.limits.max_pixels)
        batch = as_columns(batch)
        count = row_count(batch)
        columns = {
            column: _Column(geometry, count)
            for geometry, column in pixel_columns(self.geometries).items()
        }
        reasons = np.full(count, None, object)
        placed: SimpleQueue[BaseException | None] = SimpleQueue()

        def decode(row: int, decoder: FileDecoder) -> NDArray[np.uint8]:
            return decoder.decode(read_row(batch, row, self.folder, self.limits.max_bytes))

        def place(row: int, decoded: NDArray[np.uint8] | ImageError) -> None:
            try:
                if isinstance(decoded, ImageError):
                    raise decoded
                for pixels in columns.values():
                    pixels.put(row, decoded)
            except ImageError as reason:
                reasons[row] = str(reason)
            except MemoryError:
                reasons[row] = "not enough memory to bring it to the detector's size"
            placed.put(None)

        opener = decoder_opener(self.limits, isolate=False, say=lambda _text: None)
        with DecodePool(1, self.limits.max_seconds, opener, placed.put) as pool:
            for row in range(count):
                pool.submit(partial(decode, row), partial(place, row))
            for _ in range(count):
                if (broken := placed.get()) is not None:
                    raise broken
        made = {column: pixels.array for column, pixels in columns.items()}
        kept = {name: values for name, values in batch.items() if name != BYTES}
        return {**kept, **made, REASON: reasons}


class _Column:
    """The pixels of a batch: one array, or at native resolution an array of arrays."""

    def __init__(self, geometry: Geometry, count: int):
        self._geometry = geometry
        self.array: NDArray[Any]
        if geometry.height is not None:
            shape = (count, geometry.views, *geometry.fixed_size, 3)
            self.array = np.zeros(shape, geometry.dtype)
        else:
            self.array = np.empty(count, object)
            for row in range(count):  # a row that fails has one black pixel, which is not looked at
                self.array[row] = np.zeros((1, 1, 1, 3), np.uint8)

    def put(self, row: int, rgb: NDArray[np.uint8]) -> None:
        views: Pixels = apply_geometry(self._geometry, rgb)
        self.array[row] = views
