"""From a decoded image to the detector's input, equal to the paper's code byte for byte.

A geometry is a short list of steps, see `trtdet.engine.steps`. Without one that sets the size, the
detector sees the image at its native resolution.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.steps import (
    CenterCrop,
    CenterSquare,
    OpenCvResize,
    ReflectPad,
    Repeat,
    Rgb,
    Step,
    Stretch,
    TenCrop,
    TensorFlowResize,
    step_from_record,
)
from trtdet.errors import BundleError

Pixels = NDArray[np.uint8] | NDArray[np.float32]  # [..., H, W, 3], 0 to 255

# After one of these the size is known whatever the image was.
_SIZED = (CenterCrop, TenCrop, Stretch, CenterSquare, OpenCvResize, TensorFlowResize)
_LAST = (TenCrop, TensorFlowResize)


@dataclass(frozen=True)
class Geometry:
    """What happens to an image before the network sees it, step by step.

    Raises ValueError for a list of steps that cannot be.
    """

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        for step in self.steps:
            hints = get_type_hints(type(step))
            numbers = [value for name, value in asdict(step).items() if hints[name] is int]
            if not all(type(value) is int and value >= 1 for value in numbers):
                raise ValueError(f"{step} is not made of whole numbers above 0")
        if any(isinstance(step, _LAST) for step in self.steps[:-1]):
            raise ValueError("ten crops and TensorFlow's resize can only be the last step")
        if any(isinstance(step, _SIZED) for step in self.steps) and self.height is None:
            raise ValueError("a step after the one that sets the size changes it again")

    @staticmethod
    def of(*steps: Step) -> Geometry:
        """The geometry of these steps."""
        return Geometry(steps)

    def __str__(self) -> str:
        parts = [str(step) for step in self.steps]
        return ", ".join(parts if self.height else ["native resolution", *parts])

    @property
    def height(self) -> int | None:
        """Of the detector's input; None at native resolution."""
        return self._size()[0]

    @property
    def width(self) -> int | None:
        """Of the detector's input; None at native resolution."""
        return self._size()[1]

    @property
    def fixed_size(self) -> tuple[int, int]:
        """(height, width). Raises ValueError at native resolution."""
        height, width = self._size()
        if height is None or width is None:
            raise ValueError("images of native resolution have no fixed size")
        return height, width

    @property
    def views(self) -> int:
        """How many inputs one image gives; their logits are averaged."""
        return 10 if self.steps and isinstance(self.steps[-1], TenCrop) else 1

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the detector's input."""
        floats = self.steps and isinstance(self.steps[-1], TensorFlowResize)
        return np.float32 if floats else np.uint8

    def _size(self) -> tuple[int | None, int | None]:
        if not self.steps or not isinstance(self.steps[-1], _SIZED):
            return None, None
        return self.steps[-1].height, self.steps[-1].width


NATIVE = Geometry()


def apply_geometry(geometry: Geometry, rgb: Rgb) -> Pixels:
    """`rgb` (uint8 [h, w, 3]) as the detector's inputs: [views, height, width, 3].

    Raises ImageError where an image is too small for its steps.
    """
    pixels: Any = rgb
    for step, following in itertools.zip_longest(geometry.steps, geometry.steps[1:]):
        if isinstance(step, ReflectPad | Repeat) and isinstance(following, CenterCrop):
            # One side is made longer and the other cut, in either order: a thread of a picture
            # would become gigabytes on the way.
            pixels = following.cut(pixels)
        pixels = step.apply(pixels)
    views: Pixels = pixels.reshape(-1, *pixels.shape[-3:])
    return views


def geometry_to_json(geometry: Geometry) -> list[dict[str, Any]]:
    """The record that `bundle.json` keeps."""
    return [asdict(step) for step in geometry.steps]


def geometry_from_json(record: list[dict[str, Any]]) -> Geometry:
    """The inverse of `geometry_to_json`. Raises BundleError for what it does not know."""
    try:
        return Geometry(tuple(step_from_record(step) for step in record))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"the bundle's geometry {record!r} is not one this version of trtdet knows "
            f"({error}): update trtdet, or build the bundle again"
        ) from error
