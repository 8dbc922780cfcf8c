"""Probes: generated images that travel in the bundle, so that any machine can check its engine.

They are drawn, not photographed: nobody's picture is in a bundle. Four kinds, because detectors
look at different things: natural statistics, up-sampling traces, flat regions with edges, noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]

_SEED = 20220914


def make_probes(height: int, width: int) -> Rgb:
    """Four images uint8 [4, height, width, 3], the same on every machine."""
    rng = np.random.default_rng(_SEED)
    kinds: tuple[Callable[[np.random.Generator, int, int], Rgb], ...] = (
        _natural,
        _upsampled,
        _dead_leaves,
        _noise,
    )
    return np.stack([kind(rng, height, width) for kind in kinds])


def _natural(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Noise whose spectrum falls with frequency, as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    falling = 1.0 / np.maximum(frequency, 1.0 / max(height, width))
    white = rng.standard_normal((height, width, 3))
    pink = np.fft.ifft2(np.fft.fft2(white, axes=(0, 1)) * falling[..., None], axes=(0, 1)).real
    return _to_bytes(128.0 + 45.0 * pink / pink.std())


def _upsampled(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """A natural image at half the size, enlarged: the trace that generators leave."""
    small = _natural(rng, (height + 1) // 2, (width + 1) // 2)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def _dead_leaves(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Discs of one colour over each other: edges and flat regions."""
    y, x = np.mgrid[:height, :width]
    image = np.empty((height, width, 3))
    image[:] = rng.uniform(0, 255, 3)
    for _ in range(120):
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
        radius = min(height, width) * 0.02 / rng.uniform(0.08, 1.0)
        disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        image[disc] = rng.uniform(0, 255, 3)
    return _to_bytes(image + rng.normal(0.0, 2.0, image.shape))


def _noise(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Every byte equally likely: the hardest input for a sum."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _to_bytes(values: NDArray[np.float64]) -> Rgb:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
