"""From a decoded image to the detector's input, equal to the paper's code byte for byte.

The centre crop with its zero padding and the stretch (`Resize((h, w))`, Pillow's antialiased
resize), both as torchvision applies them to a Pillow image; and the central square, resized, which
is how the VIP Cup's protocol cuts its images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trtdet.errors import BundleError

Rgb = NDArray[np.uint8]  # [H, W, 3]

_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class CenterCrop:
    """The central `height` x `width` window; a smaller image is padded with black first."""

    height: int
    width: int
    kind: Literal["center_crop"] = "center_crop"

    def __str__(self) -> str:
        return f"centre crop {self.height}x{self.width}, black padding"


@dataclass(frozen=True)
class Stretch:
    """The whole image resized to `height` x `width` by Pillow; the aspect ratio is not kept."""

    height: int
    width: int
    filter: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    kind: Literal["stretch"] = "stretch"

    def __str__(self) -> str:
        return f"stretch to {self.height}x{self.width}, Pillow {self.filter}"


@dataclass(frozen=True)
class CenterSquare:
    """The largest central square, resized to `height` x `width` by Pillow: nothing is distorted.

    Lanczos, or bicubic where it has to be enlarged (github.com/grip-unina/vipcup2022,
    random_operations.py). `height` and `width` are equal.
    """

    height: int
    width: int
    kind: Literal["center_square"] = "center_square"

    def __str__(self) -> str:
        return f"central square, resized to {self.height}x{self.width}, Pillow lanczos"


Geometry = CenterCrop | Stretch | CenterSquare


def apply_geometry(geometry: Geometry, rgb: Rgb, out: Rgb) -> None:
    """Write `rgb` (uint8 [h, w, 3]) through `geometry` into `out` (uint8 [height, width, 3])."""
    if isinstance(geometry, CenterCrop):
        _center_crop(rgb, out)
    elif isinstance(geometry, Stretch):
        _resize(rgb, out, geometry.filter)
    else:
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        square = rgb[top : top + side, left : left + side]
        _resize(square, out, "lanczos" if side > geometry.height else "bicubic")


def _resize(rgb: Rgb, out: Rgb, resampling: str) -> None:
    if rgb.shape == out.shape:
        out[:] = rgb  # Pillow, too, returns a copy when the size does not change
        return
    height, width = out.shape[:2]
    resized = Image.fromarray(rgb).resize((width, height), _PILLOW_FILTERS[resampling])
    out[:] = np.asarray(resized)


def _center_crop(rgb: Rgb, out: Rgb) -> None:
    top_in, top_out, rows = _center_window(rgb.shape[0], out.shape[0])
    left_in, left_out, columns = _center_window(rgb.shape[1], out.shape[1])
    if (rows, columns) != out.shape[:2]:
        out[:] = 0
    out[top_out : top_out + rows, left_out : left_out + columns] = rgb[
        top_in : top_in + rows, left_in : left_in + columns
    ]


def _center_window(have: int, want: int) -> tuple[int, int, int]:
    """One axis of torchvision's CenterCrop: (start in the image, start in the output, length).

    Padding puts the odd pixel at the end; cropping rounds halves to the even pixel, as Python does.
    """
    if have < want:
        return 0, (want - have) // 2, have
    return round((have - want) / 2.0), 0, want


def geometry_to_json(geometry: Geometry) -> dict[str, Any]:
    """The record that `bundle.json` keeps."""
    return asdict(geometry)


def geometry_from_json(record: dict[str, Any]) -> Geometry:
    """The inverse of `geometry_to_json`. Raises BundleError for an unknown kind."""
    kinds: dict[str, type[CenterCrop] | type[Stretch] | type[CenterSquare]] = {
        "center_crop": CenterCrop,
        "stretch": Stretch,
        "center_square": CenterSquare,
    }
    try:
        geometry = kinds[record["kind"]](**record)
        if min(geometry.height, geometry.width) < 1:
            raise ValueError("a side is below 1")
        if isinstance(geometry, Stretch):
            _PILLOW_FILTERS[geometry.filter]
        if isinstance(geometry, CenterSquare) and geometry.height != geometry.width:
            raise ValueError("a square has equal sides")
        return geometry
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"the bundle's geometry {record!r} is not one this version of trtdet knows "
            f"({', '.join(kinds)}): update trtdet, or build the bundle again"
        ) from error
