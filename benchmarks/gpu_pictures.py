"""The image files of a run: the user's, or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trtdet.benchmarks.gpu_section import MissingError, Request
from trtdet.build.probes import make_probes
from trtdet.engine.steps import Rgb

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

# As wide as the pictures of a web page.
_HEIGHT, _WIDTH, _QUALITY = 400, 500, 90
_DRAWN = 256  # 15 MB of files, which stay in the page cache


def find_pictures(folder: Path) -> list[Path]:
    """Every image file below a folder, sorted. Raises MissingError where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise MissingError(f"there is no image below {folder}")
    return found


def scored_pictures(request: Request, count: int = _DRAWN) -> list[Path]:
    """The user's, else drawn JPEG files of 500x400 pixels, which are made once."""
    if request.images is not None:
        return find_pictures(request.images)
    folder = request.work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    if missing := [number for number, path in enumerate(paths) if not path.is_file()]:
        probes = make_probes(_HEIGHT, _WIDTH)
        for number in missing:
            # The kinds in turn, each shifted: every file has other bytes, and none is noise alone.
            kinds = probes[number % 3], probes[(number + 1) % 3]
            rgb = (np.roll(kinds[0], 7 * number, 1) // 2) + (np.roll(kinds[1], 3 * number, 0) // 2)
            Image.fromarray(rgb).save(paths[number], quality=_QUALITY)
    return paths


def drawn(sizes: Sequence[tuple[int, int]], seed: int = 7) -> list[Rgb]:
    """Images of (height, width): noise, black and white noise, ramps, and natural ones, in turn.

    Black and white drive a filter with negative weights beyond both ends of a byte.
    """
    rng = np.random.default_rng(seed)
    natural = make_probes(256, 256)[0]
    images = []
    for number, (height, width) in enumerate(sizes):
        kind = number % 4
        if kind == 0:
            rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
        elif kind == 1:
            rgb = np.asarray(255 * rng.integers(0, 2, (height, width, 3), np.uint8), np.uint8)
        elif kind == 2:
            ramp = np.arange(height)[:, None, None] + 3 * np.arange(width)[:, None] + np.arange(3)
            rgb = ramp.astype(np.uint8)
        else:
            repeats = (-(-height // 256), -(-width // 256), 1)
            rgb = np.ascontiguousarray(np.tile(natural, repeats)[:height, :width])
        images.append(rgb)
    return images
