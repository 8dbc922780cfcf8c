"""A dozen drawn scenes for `trtdet demo`: nobody's photographs, and no generator's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]  # [H, W, 3]
Plane = NDArray[np.float64]

_SEED = 7


@dataclass(frozen=True)
class Scene:
    """One drawn image, and how its file is written."""

    file: str
    caption: str
    draw: Callable[[np.random.Generator], Rgb]
    save: dict[str, Any]  # Pillow's options

    def image(self) -> Image.Image:
        """The scene, the same on every machine."""
        return Image.fromarray(self.draw(np.random.default_rng(_SEED)))


def scenes() -> list[Scene]:
    """Twelve scenes in three formats."""
    leaves = _leaves
    return [
        Scene("01-leaves.jpg", "discs over discs, with a sensor's noise",
              lambda rng: _noisy(leaves(rng, 480, 640), rng, 4.0), {"quality": 90}),
        Scene("02-leaves-clean.png", "the same discs without noise",
              lambda rng: leaves(rng, 480, 640), {}),
        Scene("03-leaves-enlarged.png", "the same, drawn at half size and enlarged: a trace that "
              "up-sampling leaves", lambda rng: _enlarged(leaves(rng, 240, 320), 2), {}),
        Scene("04-leaves-recompressed.jpg", "the same, through a strong JPEG",
              lambda rng: _noisy(leaves(rng, 480, 640), rng, 4.0), {"quality": 40}),
        Scene("05-clouds.jpg", "noise with the spectrum of photographs",
              lambda rng: _clouds(rng, 512, 512), {"quality": 92}),
        Scene("06-clouds-small.webp", "the same, small, as WebP",
              lambda rng: _clouds(rng, 200, 200), {"quality": 80}),
        Scene("07-hills.jpg", "hills in haze, with a sensor's noise",
              lambda rng: _noisy(_hills(rng, 400, 600), rng, 3.0), {"quality": 88}),
        Scene("08-hills-clean.png", "the same hills without noise",
              lambda rng: _hills(rng, 400, 600), {}),
        Scene("09-mosaic.webp", "a mosaic of flat cells",
              lambda rng: _mosaic(rng, 360, 360), {"quality": 90}),
        Scene("10-bricks.jpg", "a wall of bricks",
              lambda rng: _noisy(_bricks(rng, 384, 512), rng, 5.0), {"quality": 85}),
        Scene("11-fractal.png", "the Mandelbrot set", lambda rng: _fractal(400, 400), {}),
        Scene("12-noise.png", "nothing but noise",
              lambda rng: rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), {}),
    ]  # fmt: skip


def _leaves(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Discs that hide each other, their sizes spread as those of things in photographs."""
    y, x = np.mgrid[:height, :width]
    image = np.empty((height, width, 3))
    image[:] = rng.uniform(0, 255, 3)
    for _ in range(500):
        radius = 0.02 * height / rng.uniform(0.08, 1.0)
        middle = rng.uniform(0, height), rng.uniform(0, width)
        disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2
        image[disc] = rng.uniform(0, 255, 3)
    return _bytes(image)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Rgb:
    planes = [_pink(rng, height, width) for _ in range(3)]
    return _bytes(128 + 40 * (np.stack(planes, -1) * 0.4 + planes[0][..., None] * 0.9))


def _hills(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Ridge behind ridge, each paler than the one before it."""
    y = np.arange(height)[:, None]
    sky = 235.0 - 60.0 * y / height
    image = np.stack([sky * 0.85, sky * 0.95, sky], -1) + np.zeros((height, width, 3))
    for number in range(5):
        ridge = height * (0.35 + 0.12 * number) + 30 * _pink(rng, 1, width)[0]
        near = (number + 1) / 5
        colour = np.array([150 - 110 * near, 165 - 85 * near, 180 - 140 * near])
        texture = 10 * near * _pink(rng, height, width)
        below = y > ridge[None, :]
        image[below] = (colour + texture[..., None])[below]
    return _bytes(image)


def _mosaic(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """Every pixel has the colour of the nearest of sixty points."""
    y, x = np.mgrid[:height, :width]
    points = rng.uniform(0, 1, (60, 2)) * (height, width)
    colours = rng.uniform(20, 235, (60, 3))
    distance = [(y - point[0]) ** 2 + (x - point[1]) ** 2 for point in points]
    return _bytes(colours[np.argmin(distance, 0)])


def _bricks(rng: np.random.Generator, height: int, width: int) -> Rgb:
    y, x = np.mgrid[:height, :width]
    row = y // 32
    column = (x + 32 * (row % 2)) // 64
    tone = rng.uniform(0.7, 1.1, (row.max() + 1, column.max() + 1))[row, column]
    mortar = (y % 32 < 4) | ((x + 32 * (row % 2)) % 64 < 4)
    image = (
        tone[..., None] * np.array([170.0, 80.0, 60.0]) + 12 * _pink(rng, height, width)[..., None]
    )
    image[mortar] = (190, 185, 175)
    return _bytes(image)


def _fractal(height: int, width: int) -> Rgb:
    c = np.linspace(-2.1, 0.6, width)[None, :] + 1j * np.linspace(-1.35, 1.35, height)[:, None]
    z = np.zeros_like(c)
    steps = np.zeros(c.shape)
    for _ in range(60):
        inside = np.abs(z) < 4
        z = np.where(inside, z * z + c, z)
        steps += inside
    angle = steps[..., None] / 9.0 + np.array([0.0, 2.1, 4.2])
    return _bytes(np.where(steps[..., None] == 60, 0, 127.5 + 127.5 * np.cos(angle)))


def _pink(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Noise whose amplitude falls with frequency; mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    falling = 1.0 / np.maximum(frequency, 1.0 / max(height, width))
    falling[0, 0] = 0.0
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) * falling).real
    return np.asarray(noise / noise.std())


def _noisy(rgb: Rgb, rng: np.random.Generator, deviation: float) -> Rgb:
    return _bytes(rgb + rng.normal(0.0, deviation, rgb.shape))


def _enlarged(rgb: Rgb, times: int) -> Rgb:
    size = (rgb.shape[1] * times, rgb.shape[0] * times)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def _bytes(values: NDArray[np.floating]) -> Rgb:
    rounded: Rgb = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
