"""Which files were cut from one picture: they stand or fall together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.labels import LabelledImage
from trtdet.calibration.metrics import Labels

Pictures = NDArray[np.int64]  # [N], the number of each image's picture


def number_pictures(images: Sequence[LabelledImage]) -> Pictures:
    """A number for each picture, 0 and up; an image without one is its own."""
    numbers: dict[str, int] = {}
    named = (each.image or str(each.path) for each in images)
    return np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)


def pictures_of(labels: Labels, label: int, pictures: Pictures | None) -> Pictures:
    """Of a class's images the numbers of their pictures, without gaps; None: an image each."""
    inside = labels == label
    if pictures is None:
        return np.arange(int(inside.sum()))
    return np.asarray(np.unique(pictures[inside], return_inverse=True)[1], np.int64)
