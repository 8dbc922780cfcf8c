"""The steps of a geometry, each the exact equivalent of one line of some paper's preprocessing.

torchvision on Pillow images, albumentations and OpenCV, TensorFlow: bytes, not tolerances.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

import cv2
import numpy as np
from numpy.typing import NDArray

from trtdet.engine.resize import (
    OpenCvFilter,
    PillowFilter,
    TensorFlowFilter,
    resize_opencv,
    resize_pillow,
    resize_tensorflow,
)
from trtdet.errors import ImageError

Rgb = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class CenterCrop:
    """The central window; a smaller image is padded with black first.

    An odd margin is halved as torchvision does, to the nearest even number, or as albumentations
    and OpenCV users do, down.
    """

    height: int
    width: int
    halves: Literal["even", "down"] = "even"
    kind: Literal["center_crop"] = "center_crop"

    def __str__(self) -> str:
        return f"centre crop {self.height}x{self.width}, black padding"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [height, width, 3]."""
        top_in, top_out, rows = self._window(rgb.shape[0], self.height)
        left_in, left_out, columns = self._window(rgb.shape[1], self.width)
        window = rgb[top_in : top_in + rows, left_in : left_in + columns]
        if (rows, columns) == (self.height, self.width):
            return window
        out = np.zeros((self.height, self.width, 3), np.uint8)
        out[top_out : top_out + rows, left_out : left_out + columns] = window
        return out

    def cut(self, rgb: Rgb) -> Rgb:
        """The same crop, along the sides that are long enough."""
        window = CenterCrop(
            min(rgb.shape[0], self.height), min(rgb.shape[1], self.width), self.halves
        )
        return window.apply(rgb)

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the crop in an image of that size: below 0 where it is padded."""
        return self._start(height, self.height), self._start(width, self.width)

    def _start(self, have: int, want: int) -> int:
        """Padding puts the odd pixel at the end."""
        if have < want:
            return -((want - have) // 2)
        return round((have - want) / 2.0) if self.halves == "even" else (have - want) // 2

    def _window(self, have: int, want: int) -> tuple[int, int, int]:
        """One axis: (start in the image, start in the output, length)."""
        start = self._start(have, want)
        return max(start, 0), max(-start, 0), min(have, want)


@dataclass(frozen=True)
class TenCrop:
    """Four corners, the centre, and the same five of the mirrored image (torchvision's TenCrop).

    The logits of the ten are averaged. Raises ImageError for an image that is smaller.
    """

    height: int
    width: int
    kind: Literal["ten_crop"] = "ten_crop"

    def __str__(self) -> str:
        return f"ten crops {self.height}x{self.width}, logits averaged"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to ten views [10, height, width, 3]."""
        corners = self.corners(*rgb.shape[:2])
        return np.stack(
            [
                image[top : top + self.height, left : left + self.width]
                for image in (rgb, rgb[:, ::-1])
                for top, left in corners
            ]
        )

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of the five crops in an image of that size, and of those of its mirror image.

        Raises ImageError for an image that is smaller.
        """
        bottom, right = height - self.height, width - self.width
        if min(bottom, right) < 0:
            raise ImageError(
                f"{width}x{height} is smaller than the {self.width}x{self.height} "
                "that ten crops need"
            )
        centre = (round(bottom / 2.0), round(right / 2.0))
        return [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]


@dataclass(frozen=True)
class Stretch:
    """The whole image resized by Pillow, antialiased; the aspect ratio is not kept."""

    height: int
    width: int
    filter: PillowFilter = "bilinear"
    kind: Literal["stretch"] = "stretch"

    def __str__(self) -> str:
        return f"stretch to {self.height}x{self.width}, Pillow {self.filter}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [height, width, 3]."""
        return resize_pillow(rgb, self.height, self.width, self.filter)


@dataclass(frozen=True)
class ShortSide:
    """The shorter side resized to `size` by Pillow, the aspect ratio kept: torchvision's Resize(n).

    The longer side is `int(size * long / short)`.
    """

    size: int
    filter: PillowFilter = "bilinear"
    kind: Literal["short_side"] = "short_side"

    def __str__(self) -> str:
        return f"shorter side to {self.size}, Pillow {self.filter}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [h', w', 3], the shorter of them `size`."""
        return resize_pillow(rgb, *self.target(*rgb.shape[:2]), self.filter)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what comes of an image of that size."""
        if width <= height:
            return int(self.size * height / width), self.size
        return self.size, int(self.size * width / height)


@dataclass(frozen=True)
class CenterSquare:
    """The largest central square, resized by Pillow: nothing is distorted.

    Lanczos, or bicubic where it has to be enlarged (github.com/grip-unina/vipcup2022,
    random_operations.py). `height` and `width` are equal.
    """

    height: int
    width: int
    kind: Literal["center_square"] = "center_square"

    def __post_init__(self) -> None:
        if self.height != self.width:
            raise ValueError("a square has equal sides")

    def __str__(self) -> str:
        return f"central square, resized to {self.height}x{self.width}, Pillow lanczos"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [height, width, 3]."""
        top, left, side = self.square(*rgb.shape[:2])
        square = rgb[top : top + side, left : left + side]
        return resize_pillow(square, self.height, self.width, self.filter_for(side))

    @staticmethod
    def square(height: int, width: int) -> tuple[int, int, int]:
        """(top, left, side) of the square in an image of that size."""
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side

    def filter_for(self, side: int) -> PillowFilter:
        """What a square of `side` pixels is resized with."""
        return "lanczos" if side > self.height else "bicubic"


@dataclass(frozen=True)
class ReflectPad:
    """At least `height` x `width`, by reflection without the edge pixel (BORDER_REFLECT_101).

    albumentations' PadIfNeeded: the odd pixel goes to the bottom and right.
    """

    height: int
    width: int
    kind: Literal["reflect_pad"] = "reflect_pad"

    def __str__(self) -> str:
        return f"reflection to at least {self.height}x{self.width}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [max(h, height), max(w, width), 3]."""
        rows = max(self.height - rgb.shape[0], 0)
        columns = max(self.width - rgb.shape[1], 0)
        if rows == columns == 0:
            return rgb
        top, left = rows // 2, columns // 2
        edges = (top, rows - top, left, columns - left)
        return np.asarray(cv2.copyMakeBorder(rgb, *edges, cv2.BORDER_REFLECT_101), np.uint8)


@dataclass(frozen=True)
class Repeat:
    """The image side by side with itself until no side is shorter than asked (GenImage's rule)."""

    height: int
    width: int
    kind: Literal["repeat"] = "repeat"

    def __str__(self) -> str:
        return f"repeated to at least {self.height}x{self.width}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [m h, n w, 3]."""
        height, width = rgb.shape[:2]
        if height >= self.height and width >= self.width:
            return rgb
        return np.tile(rgb, (-(-self.height // height), -(-self.width // width), 1))


@dataclass(frozen=True)
class Trim:
    """The last rows and columns dropped, down to a multiple.

    Raises ImageError where nothing is left.
    """

    multiple: int = 2
    kind: Literal["trim"] = "trim"

    def __str__(self) -> str:
        return f"sides trimmed to multiples of {self.multiple}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [h', w', 3]."""
        height, width = (side - side % self.multiple for side in rgb.shape[:2])
        if min(height, width) == 0:
            raise ImageError(f"{rgb.shape[1]}x{rgb.shape[0]} is too small for this detector")
        return rgb[:height, :width]


@dataclass(frozen=True)
class OpenCvResize:
    """The whole image through `cv2.resize`: uint8, and never antialiased but for "area"."""

    height: int
    width: int
    filter: OpenCvFilter
    kind: Literal["opencv_resize"] = "opencv_resize"

    def __str__(self) -> str:
        return f"resized to {self.height}x{self.width}, OpenCV {self.filter}"

    def apply(self, rgb: Rgb) -> Rgb:
        """Rgb [h, w, 3] to [height, width, 3]."""
        return resize_opencv(rgb, self.height, self.width, self.filter)


@dataclass(frozen=True)
class TensorFlowResize:
    """The whole image through `tf.image.resize` without antialias: float32, neither rounded nor
    clipped, so it can only be the last step."""

    height: int
    width: int
    filter: TensorFlowFilter
    kind: Literal["tensorflow_resize"] = "tensorflow_resize"

    def __str__(self) -> str:
        return f"resized to {self.height}x{self.width}, TensorFlow {self.filter} without antialias"

    def apply(self, rgb: Rgb) -> NDArray[np.float32]:
        """Rgb [h, w, 3] to float32 [height, width, 3]."""
        return resize_tensorflow(rgb, self.height, self.width, self.filter)


Step = (
    CenterCrop
    | TenCrop
    | Stretch
    | ShortSide
    | CenterSquare
    | ReflectPad
    | Repeat
    | Trim
    | OpenCvResize
    | TensorFlowResize
)
KINDS: dict[str, type[Step]] = {step.kind: step for step in get_args(Step)}


def step_from_record(record: dict[str, Any]) -> Step:
    """A step from its fields and its `kind`. Raises ValueError that says what there is."""
    kind = KINDS.get(record["kind"]) if isinstance(record, dict) and "kind" in record else None
    if kind is None:
        raise ValueError(f"{record!r} names no kind of step: {', '.join(KINDS)}")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    if unknown := [name for name in record if name not in known]:
        raise ValueError(f"{record['kind']} has no {', '.join(unknown)}, but {', '.join(known)}")
    for name, value in record.items():
        choices = get_args(hints[name])
        if choices and value not in choices:
            raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
    try:
        return kind(**record)
    except TypeError as error:
        raise ValueError(f"{record['kind']} needs {', '.join(known[:-1])}") from error
