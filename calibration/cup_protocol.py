"""What the VIP Cup 2022 did to every test image: a random square, 200 x 200 pixels, JPEG.

Source: the organisers' random_operations.py (Pillow 9.0.1, libjpeg 9e). The draws, their order and
the generator are the same, so that a seed gives the same crops and qualities here. The pixels of a
resize and the bytes of a JPEG are this Pillow's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.errors import ImageError

SIDE = 200
SMALLEST, LARGEST = 160, 2048  # of a crop
LEAST_SHARE = (5, 8)  # of the shorter side
QUALITIES = (65, 100)

# What the organisers took from a folder.
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"))


@dataclass(frozen=True)
class Draw:
    """What chance chose for an image."""

    crop: int  # side of the square
    x: int  # of its left edge
    y: int  # of its upper edge
    quality: int


@dataclass(frozen=True)
class Made:
    """An image of the set, and either what was drawn for it or why it is not there."""

    name: str
    source: int  # which one
    draw: Draw | None
    reason: str = ""


def apply_protocol(
    sources: Sequence[Path], folder: Path, seed: int, count: int | None = None
) -> Iterator[Made]:
    """Write `img%06d.jpg` for each source, in their order, or for `count` drawn ones.

    A source that cannot be read or is too small is reported, its number stays free, and nothing is
    drawn for it: the organisers' script stopped there.
    """
    quiet_decoders()
    rng = random.Random(seed)
    order = list(range(len(sources)))
    if count is not None:
        rng.shuffle(order)
        order = order[:count]
    for number, source in enumerate(order):
        name = f"img{number:06d}.jpg"
        try:
            rgb = decode_rgb(read_image_file(sources[source]), max_pixels=DEFAULT_MAX_PIXELS)
            draw = draw_operations(rng, width=rgb.shape[1], height=rgb.shape[0])
        except ImageError as error:
            yield Made(name, source, None, str(error))
            continue
        operated(rgb, draw).save(folder / name, "JPEG", quality=draw.quality)
        yield Made(name, source, draw)


def draw_operations(rng: random.Random, *, width: int, height: int) -> Draw:
    """The next draws: crop, x, y, quality. Raises ImageError for an image that is too small."""
    largest = min(width, height, LARGEST)
    if largest < SMALLEST:
        raise ImageError(f"{width}x{height} is too small: the shorter side needs {SMALLEST} pixels")
    smallest = max(largest * LEAST_SHARE[0] // LEAST_SHARE[1], SMALLEST)
    crop = rng.randint(smallest, largest)
    x = rng.randint(0, width - crop)
    y = rng.randint(0, height - crop)
    return Draw(crop, x, y, rng.randint(*QUALITIES))


def operated(rgb: NDArray[np.uint8], draw: Draw) -> Image.Image:
    """Cropped and resized, not compressed yet."""
    square = Image.fromarray(rgb).crop((draw.x, draw.y, draw.x + draw.crop, draw.y + draw.crop))
    smaller = draw.crop > SIDE
    kind = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    return square.resize((SIDE, SIDE), kind)
