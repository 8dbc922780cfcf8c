"""What a file goes through on its way: recompression, resizing, blur, cropping, noise.

Each is a function of pixels and a random generator (for noise alone), so that the same file is
changed alike for every detector. Sizes, qualities and strengths are those of the field's papers.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]  # [H, W, 3]
Distort = Callable[[Rgb, np.random.Generator], Rgb]


@dataclass(frozen=True)
class Level:
    """One strength of a distortion; `distort` None: the image as it is."""

    name: str
    distort: Distort | None


@dataclass(frozen=True)
class Family:
    """A kind of distortion, and its levels in the order of a chart's axis."""

    name: str
    unit: str  # of the levels
    levels: tuple[Level, ...]


def recoded(rgb: Rgb, _rng: np.random.Generator, *, codec: str, quality: int) -> Rgb:
    """Through Pillow's JPEG (4:2:0) or WEBP encoder at `quality`, and back."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, codec, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(rgb: Rgb, _rng: np.random.Generator, *, scale: float) -> Rgb:
    """Made smaller or larger with Pillow's bicubic filter, which averages when it shrinks."""
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def blurred(rgb: Rgb, _rng: np.random.Generator, *, sigma: float) -> Rgb:
    """Gaussian blur; `sigma` in pixels."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)


def cropped(rgb: Rgb, _rng: np.random.Generator, *, share: float) -> Rgb:
    """The central part, `share` of each side."""
    height, width = (max(1, round(side * share)) for side in rgb.shape[:2])
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def noisy(rgb: Rgb, rng: np.random.Generator, *, sigma: float) -> Rgb:
    """Gaussian noise of `sigma` levels in each channel, rounded and clipped."""
    values = rgb + rng.normal(0.0, sigma, rgb.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def file_generator(seed: int, name: str) -> np.random.Generator:
    """The generator of a file's noise: its own, whatever is scored beside it."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, *digest])


_AS_IT_IS = Level("as is", None)


def _family(name: str, unit: str, levels: dict[str, Distort], *, as_is: int = 0) -> Family:
    made = [Level(level, distort) for level, distort in levels.items()]
    made.insert(as_is, _AS_IT_IS)
    return Family(name, unit, tuple(made))


FAMILIES = (
    _family(
        "JPEG",
        "quality",
        {f"{q}": partial(recoded, codec="JPEG", quality=q) for q in (95, 90, 75, 60, 45, 30)},
    ),
    _family(
        "WebP",
        "quality",
        {f"{q}": partial(recoded, codec="WEBP", quality=q) for q in (95, 90, 75, 60, 45, 30)},
    ),
    _family(
        "Resizing",
        "percent of each side",
        {f"{p}": partial(resized, scale=p / 100) for p in (25, 50, 75, 125, 150, 200)},
        as_is=3,
    ),
    _family(
        "Blur",
        "sigma, pixels",
        {f"{s:g}": partial(blurred, sigma=s) for s in (0.5, 1.0, 1.5, 2.0, 3.0)},
    ),
    _family(
        "Centre crop",
        "percent of each side",
        {f"{p}": partial(cropped, share=p / 100) for p in (90, 75, 50, 25)},
    ),
    _family(
        "Noise",
        "sigma, levels",
        {f"{s:g}": partial(noisy, sigma=s) for s in (1.0, 2.0, 4.0, 8.0, 16.0)},
    ),
)
