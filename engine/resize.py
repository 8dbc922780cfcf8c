"""Resizing as three libraries do it: Pillow, OpenCV and TensorFlow. They differ, visibly.

Pillow widens its filter when it shrinks (antialias) and works in 8 bits; OpenCV does not widen, and
its bicubic has a = -0.75; TensorFlow gives float32 and its bicubic has a = -0.5.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

PillowFilter = Literal["bilinear", "bicubic", "lanczos"]
OpenCvFilter = Literal["nearest", "linear", "cubic", "area", "lanczos4"]
TensorFlowFilter = Literal["nearest", "bilinear", "bicubic"]

_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}

# TensorFlow looks the cubic's weights up in a table of this many steps per pixel.
_TABLE = 1024


def resize_pillow(
    rgb: NDArray[np.uint8], height: int, width: int, resampling: PillowFilter
) -> NDArray[np.uint8]:
    """`Image.resize`: uint8 [h, w, 3] to uint8 [height, width, 3]."""
    if rgb.shape[:2] == (height, width):
        return rgb  # Pillow, too, returns a copy when the size does not change
    return np.asarray(Image.fromarray(rgb).resize((width, height), _PILLOW[resampling]))


def resize_opencv(
    rgb: NDArray[np.uint8], height: int, width: int, interpolation: OpenCvFilter
) -> NDArray[np.uint8]:
    """`cv2.resize`: uint8 [h, w, 3] to uint8 [height, width, 3]."""
    resized = cv2.resize(
        np.ascontiguousarray(rgb), (width, height), interpolation=_OPENCV[interpolation]
    )
    return np.asarray(resized, np.uint8)


def resize_tensorflow(
    rgb: NDArray[np.uint8], height: int, width: int, method: TensorFlowFilter
) -> NDArray[np.float32]:
    """`tf.image.resize(..., antialias=False)`: uint8 [h, w, 3] to float32 [height, width, 3].

    Half-pixel centres, in float32, every sum in TensorFlow's order, so that the results are equal
    (tensorflow/core/kernels/image/resize_bicubic_op.cc, resize_bilinear_op.cc). The same size comes
    back unchanged.
    """
    pixels = rgb.astype(np.float32)
    if rgb.shape[:2] == (height, width):
        return pixels
    rows, columns = _centres(rgb.shape[0], height), _centres(rgb.shape[1], width)
    if method == "nearest":
        near = pixels[_nearest(rgb.shape[0], rows)][:, _nearest(rgb.shape[1], columns)]
        return np.asarray(near)
    if method == "bilinear":  # [h, width, 3], then [height, width, 3]
        wide = _between(pixels.swapaxes(0, 1), columns).swapaxes(0, 1)
        return _between(wide, rows)
    tall = _cubic(pixels, rows)  # [height, w, 3], then [height, width, 3]
    return np.ascontiguousarray(_cubic(tall.swapaxes(0, 1), columns).swapaxes(0, 1))


def _centres(size: int, out: int) -> NDArray[np.float32]:
    """One axis: where the centres of the outputs [out] lie in the input, from its edge."""
    scale = np.float32(size) / np.float32(out)
    return np.asarray((np.arange(out, dtype=np.float32) + np.float32(0.5)) * scale, np.float32)


def _nearest(size: int, centres: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.minimum(np.floor(centres), size - 1).astype(np.intp)


def _between(pixels: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear along the first axis: [n, m, 3] to [len(centres), m, 3]."""
    position = centres - np.float32(0.5)
    floor = np.floor(position)
    first = floor.astype(np.intp)
    low, high = np.maximum(first, 0), np.minimum(first + 1, len(pixels) - 1)
    weight = (position - floor)[:, None, None]
    return np.asarray(pixels[low] + (pixels[high] - pixels[low]) * weight)


def _cubic(pixels: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bicubic along the first axis: [n, m, 3] to [len(centres), m, 3]."""
    position = centres - np.float32(0.5)
    floor = np.floor(position)
    step = np.rint((position - floor) * np.float32(_TABLE)).astype(np.intp)
    near, far = _keys_table()
    weights = np.stack([far[step], near[step], near[_TABLE - step], far[_TABLE - step]])
    index = floor.astype(np.intp) + np.arange(-1, 3)[:, None]  # [4, len(centres)]
    inside = np.clip(index, 0, len(pixels) - 1)
    weights = np.where(inside == index, weights, np.float32(0.0))  # nothing beyond the edge
    weights = weights * (np.float32(1.0) / weights.sum(0, dtype=np.float32))
    out = np.zeros((len(centres), *pixels.shape[1:]), np.float32)
    for tap, weight in zip(inside, weights, strict=True):
        out += weight[:, None, None] * pixels[tap]
    return out


def _keys_table() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keys' cubic with a = -0.5 at distances 0..1 and 1..2, in steps of 1 / 1024.

    In float64, rounded once, as TensorFlow's table is.
    """
    a = -0.5
    x = np.arange(_TABLE + 1, dtype=np.float64) / _TABLE
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    x = x + 1.0
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return near.astype(np.float32), far.astype(np.float32)
