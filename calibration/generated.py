"""Calibration images for want of the user's own: drawn, never photographed, and saved as JPEG.

Dead leaves: discs over discs, whose sizes follow the power law that makes such pictures have the
statistics of photographs (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV
2001), with texture, shading and a sensor's noise; some enlarged, as generators do; all through JPEG
at qualities as on the web. They stand in for real images: a build says that it used them, and how
well they did.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trtdet.calibration.draw import GATE_SIZE, SIZE
from trtdet.calibration.images import CalibrationSet, Role, SetImage, read_set, write_set
from trtdet.engine.atomic import atomic_folder
from trtdet.engine.digest import sha256_file
from trtdet.engine.store import store_folder
from trtdet.errors import InputError

Plane = NDArray[np.float32]  # [H, W] or [H, W, 3]

# Part of the folder's name: raise it whenever other images would be drawn.
VERSION = 1

_SEED = 20260914
_SIDES = (200, 640)  # pixels
_MANIFEST = "set.json"


def generated_set() -> CalibrationSet:
    """512 images to calibrate on and 256 to judge by, from the store; drawn once, in a minute."""
    folder = store_folder() / "calibration" / f"generated-{VERSION}"
    try:
        return read_set(folder / _MANIFEST)
    except InputError:  # not drawn yet, or damaged
        with atomic_folder(folder) as new:
            drawn = [_write(new / f"{index:04}.jpg", index) for index in range(SIZE + GATE_SIZE)]
            write_set(CalibrationSet(tuple(drawn), generated=True), new / _MANIFEST)
    return read_set(folder / _MANIFEST)


def draw_image(index: int) -> bytes:
    """The JPEG file of one image; the same index gives the same picture."""
    rng = np.random.default_rng([_SEED, index])
    height, width = (int(side) for side in rng.integers(*_SIDES, size=2))
    factor = rng.choice([1.0, 1.0, 1.5, 2.0])  # some are enlarged
    image = _leaves(rng, int(height / factor) + 1, int(width / factor) + 1)
    if factor > 1.0:
        way = rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=int(way)), np.float32)
    noise = rng.choice([0.0, 2.0, 5.0])
    image = image + noise * rng.standard_normal(image.shape).astype(np.float32)
    file = BytesIO()
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    options = {"quality": int(rng.integers(65, 101)), "subsampling": int(rng.choice([0, 2]))}
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def _write(path: Path, index: int) -> SetImage:
    path.write_bytes(draw_image(index))
    role: Role = "calibration" if index < SIZE else "gate"
    return SetImage(path, sha256_file(path), role)


def _leaves(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Discs and rectangles of any size over each other, each shaded and some textured."""
    texture = _pink(rng, height, width)
    image = np.full((height, width, 3), rng.uniform(20, 235), np.float32)
    image += texture[..., None] * rng.uniform(0, 40)
    largest = 0.45 * min(height, width)
    for smallest in [0.2 * largest] * 80 + [0.05 * largest] * 80 + [1.5] * 160:
        # The density of radii falls with their cube.
        radius = 1.0 / np.sqrt(rng.uniform(1.0 / largest**2, 1.0 / smallest**2))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        reach = int(np.ceil(radius)) + 1
        rows, columns = slice(max(0, y - reach), y + reach), slice(max(0, x - reach), x + reach)
        part = image[rows, columns]
        mask = np.zeros(part.shape[:2], np.float32)
        centre = (x - columns.start, y - rows.start)
        if rng.random() < 0.7:
            cv2.circle(mask, centre, round(radius), 1.0, -1, cv2.LINE_8)
        else:
            turned = (centre, (2 * radius, radius), float(rng.uniform(0, 180)))
            cv2.fillPoly(mask, [np.int32(cv2.boxPoints(turned))], 1.0)
        colour = (rng.uniform(15, 240) + rng.normal(0, 30, 3)).astype(np.float32)
        shaded = colour + texture[rows, columns, None] * np.float32(rng.choice([0, 10, 40]))
        image[rows, columns] = np.where(mask[..., None] > 0, shaded, part)
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    return np.asarray(blurred, np.float32)


def _pink(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Noise whose amplitude falls with frequency, of deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    falling = 1.0 / np.maximum(frequency, 1.0 / max(height, width))
    white = np.fft.rfft2(rng.standard_normal((height, width)))
    plane = np.fft.irfft2(white * falling, (height, width))
    return np.asarray(plane / plane.std(), np.float32)
