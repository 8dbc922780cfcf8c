"""What calibration and the gate see of an image at native resolution."""

from __future__ import annotations

from trtdet.engine.geometry import Pixels
from trtdet.engine.tiles import Tiling

# At native resolution an image's middle is looked at, this many pixels at most to a side: the
# inner tensors of a whole photograph would take gigabytes.
WINDOW = 256


def seen(views: Pixels, tiling: Tiling | None) -> Pixels:
    """What is measured of an image's views [views, H, W, 3]: at native resolution its middle."""
    return views if tiling is None else middle_of(views, tiling.stride)


def middle_of(image: Pixels, stride: int) -> Pixels:
    """The middle of an image [1, H, W, 3], `WINDOW` pixels to a side, from a whole cell on."""
    rows, columns = (_middle(size, stride) for size in image.shape[1:3])
    middle: Pixels = image[:, rows, columns].copy()
    return middle


def _middle(size: int, stride: int) -> slice:
    start = max(0, size - WINDOW) // 2 // stride * stride
    return slice(start, min(size, start + WINDOW))
