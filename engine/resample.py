"""What kernels have to do for a geometry: which pixels they need, which they compute, and the cuts.

The rules are those of `trtdet.engine.steps`; only what a detector sees of an image is computed, and
only what that is computed from is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.coefficients import Axis, PillowOrder, Range, pillow_order, resample_axis, union
from trtdet.engine.geometry import Geometry
from trtdet.engine.resize import PillowFilter
from trtdet.engine.steps import CenterCrop, CenterSquare, ShortSide, Stretch, TenCrop

LONGEST_SIDE = 65_535  # pixels, a JPEG file's; the tables of more would outgrow the image


@dataclass(frozen=True)
class View:
    """One of the detector's inputs: a cut from the computed pixels, black where there are none."""

    top: int
    left: int  # of its first column
    step: int = 1  # to the next column; -1 where it is mirrored


@dataclass(frozen=True)
class Pass:
    """One axis of an image resized: [rows, columns, 3] to [*shape, 3]."""

    axis: Axis
    table: NDArray[np.int32]  # of the axis
    of_rows: bool  # their number changes; else that of the columns
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the result."""
        outputs = self.axis.outputs
        return (outputs, self.columns) if self.of_rows else (self.rows, outputs)


@dataclass(frozen=True)
class Plan:
    """What becomes of images of one size; the bands are counted from pixel (`top`, `left`)."""

    top: int
    left: int
    rows: Axis
    columns: Axis
    passes: tuple[Pass, ...]  # in Pillow's order; none for an axis that keeps its length
    views: tuple[View, ...]


@dataclass(frozen=True)
class Recipe:
    """A geometry that the kernels can do: one resize, then a crop or none."""

    resize: Stretch | ShortSide | CenterSquare
    crop: CenterCrop | TenCrop | None
    rows_first: PillowOrder

    def plan(self, height: int, width: int) -> Plan | None:
        """For images [height, width, 3]; None where a side is too long for the kernels.

        Raises ImageError where `apply_geometry` does.
        """
        if max(height, width) > LONGEST_SIDE:
            return None
        top = left = 0
        if isinstance(self.resize, CenterSquare):
            top, left, side = self.resize.square(height, width)
            height = width = side
        new_height, new_width, resampling = _target(self.resize, height, width)
        crop = self.crop or CenterCrop(new_height, new_width)
        corners = _corners(crop, new_height, new_width)
        spans = _windows([y for y, _x, _mirrored in corners], crop.height, new_height)
        rows = resample_axis(height, new_height, resampling, spans)
        spans = _windows([x for _y, x, _mirrored in corners], crop.width, new_width)
        columns = resample_axis(width, new_width, resampling, spans)
        views = [
            View(rows.index(y), columns.index(x) + crop.width - 1, -1)
            if mirrored
            else View(rows.index(y), columns.index(x))
            for y, x, mirrored in corners
        ]
        rows_first = self.rows_first(height, width, new_height, new_width)
        return Plan(top, left, rows, columns, _passes(rows, columns, rows_first), tuple(views))


def gpu_recipe(geometry: Geometry) -> Recipe | None:
    """What the kernels do for a geometry, or None where the host brings images to their size.

    That is where nothing is resized (of a crop only the crop shall be copied), where something
    else than Pillow resizes or pads, and where the installed Pillow has other bytes.
    """
    resize: Stretch | ShortSide | CenterSquare
    crop: CenterCrop | TenCrop | None
    match geometry.steps:
        case (Stretch() | CenterSquare() as resize,):
            crop = None
        case (Stretch() | CenterSquare() | ShortSide() as resize, CenterCrop() | TenCrop() as crop):
            pass
        case _:
            return None
    order = pillow_order()
    return Recipe(resize, crop, order) if order else None


def _target(
    step: Stretch | ShortSide | CenterSquare, height: int, width: int
) -> tuple[int, int, PillowFilter]:
    """(height, width, filter) of what a step makes of a size."""
    match step:
        case Stretch():
            return step.height, step.width, step.filter
        case CenterSquare():
            return step.height, step.width, step.filter_for(height)
    return *step.target(height, width), step.filter


def _passes(rows: Axis, columns: Axis, rows_first: bool) -> tuple[Pass, ...]:
    order = [(rows, True), (columns, False)]  # of a square image both are the same object
    passes: list[Pass] = []
    shape = rows.source, columns.source
    for axis, of_rows in order if rows_first else reversed(order):
        if axis.table is not None:
            passes.append(Pass(axis, axis.table, of_rows, *shape))
            shape = passes[-1].shape
    return tuple(passes)


def _corners(crop: CenterCrop | TenCrop, height: int, width: int) -> list[tuple[int, int, bool]]:
    """(top, left, mirrored) of each view in an image, below 0 if padded.

    Of a mirrored view `left` is where it lies in the image as it is. Raises ImageError.
    """
    if isinstance(crop, CenterCrop):
        return [(*crop.corner(height, width), False)]
    corners, right = crop.corners(height, width), width - crop.width
    return [(y, x, False) for y, x in corners] + [(y, right - x, True) for y, x in corners]


def _windows(starts: Iterable[int], length: int, size: int) -> tuple[Range, ...]:
    """The pixels that some windows of one length see of `size`, as ranges in order."""
    return union((max(start, 0), min(start + length, size)) for start in starts)
