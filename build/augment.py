"""What a training image may have gone through: drawn alike for both classes.

Real and synthetic files reach a data set by different ways (a camera's JPEG, a generator's PNG),
and a network learns the way when it is easier to see than the image. Here each image is given
another way: another scale, another codec history, other colours.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]

_LARGER = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_SMALLER = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)

_UNTOUCHED = 0.5
_SMALLEST, _LARGEST = 0.45, 1.5  # scale


def augment(rgb: Rgb, rng: np.random.Generator, side: int) -> Rgb:
    """A random piece of `rgb` (uint8 [H, W, 3]) after a random history: uint8 [side, side, 3].

    Half of the pieces have none but their own: what an image is must be learned, too.
    """
    if rng.random() < _UNTOUCHED and side <= min(rgb.shape[:2]):
        return _turn(_crop(rgb, rng, side), rng)
    scale = 1.0
    if rng.random() < 0.5:
        scale = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
    scale = max(scale, side / min(rgb.shape[:2]))  # the piece is inside the image
    piece = _crop(rgb, rng, math.ceil(side / scale))
    if rng.random() < 0.35:
        piece = _first_life(piece, rng)
    piece = _turn(_resize(piece, side, rng), rng)
    if rng.random() < 0.15:
        piece = np.asarray(cv2.GaussianBlur(piece, (0, 0), rng.uniform(0.2, 1.0)), np.uint8)
    if rng.random() < 0.2:
        piece = _recolour(piece, rng)
    if rng.random() < 0.1:
        piece = _to_bytes(piece + rng.normal(0.0, rng.uniform(0.5, 4.0), piece.shape))
    if rng.random() < 0.65:
        piece = _recode(piece, rng, lowest=65)
    return piece


def _first_life(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """As if a larger file had been compressed before it was made this small."""
    side = round(rgb.shape[0] * rng.uniform(1.0, 2.2))
    return _recode(_resize(rgb, side, rng), rng, lowest=35)


def _recode(rgb: Rgb, rng: np.random.Generator, lowest: int) -> Rgb:
    """Through JPEG (4:2:0, some 4:4:4) or, less often because it is slow, WebP."""
    quality = int(rng.integers(lowest, 101))
    if rng.random() < 0.9:
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            if rng.random() < 0.2
            else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        )
        options = [
            cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling
        ]  # fmt: skip
        suffix = ".jpg"
    else:
        suffix, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality]
    _ok, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def _resize(rgb: Rgb, side: int, rng: np.random.Generator) -> Rgb:
    """A square made `side` x `side`, by one of the common filters."""
    if rgb.shape[0] == side:
        return rgb
    filters = _LARGER if side > rgb.shape[0] else _SMALLER
    resized = cv2.resize(rgb, (side, side), interpolation=int(rng.choice(filters)))
    return np.asarray(resized)


def _turn(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """One of the square's eight symmetries."""
    turned = np.rot90(rgb, int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def _recolour(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Saturation, contrast, brightness."""
    values = rgb.astype(np.float32)
    grey = values.mean(2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.3, 1.5)
    mean = values.mean()
    return _to_bytes((values - mean) * rng.uniform(0.7, 1.3) + mean * rng.uniform(0.8, 1.2))


def _crop(rgb: Rgb, rng: np.random.Generator, side: int) -> Rgb:
    """A random square of `side` x `side`, or as large as there is."""
    side = min(side, *rgb.shape[:2])
    top = int(rng.integers(rgb.shape[0] - side + 1))
    left = int(rng.integers(rgb.shape[1] - side + 1))
    return rgb[top : top + side, left : left + side]


def _to_bytes(values: NDArray[np.floating]) -> Rgb:
    rounded: Rgb = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
