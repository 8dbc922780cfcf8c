"""The image files of a measurement: the user's, or drawn ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from trtdet.calibration.generated import draw_image
from trtdet.engine.table import open_table
from trtdet.errors import InputError

# Kinds of files in turn: OpenCV decodes some of them, Pillow has to decode the others.
_KINDS: tuple[tuple[str, Callable[[Image.Image], Image.Image], dict[str, Any]], ...] = (
    ("jpg", lambda image: image, {"quality": 90}),
    ("png", lambda image: image, {}),
    ("webp", lambda image: image, {"quality": 85}),
    ("jpg", lambda image: image, {"quality": 75, "progressive": True, "subsampling": 1}),
    ("png", lambda image: image.convert("L"), {}),
    ("webp", lambda image: image, {"lossless": True}),
    ("jpg", lambda image: image.convert("CMYK"), {"quality": 90}),
    ("gif", lambda image: image.convert("P"), {}),
)


def given_pictures(source: Path, count: int) -> list[Path]:
    """`count` of the images that `trtdet score` would take from a folder or a table, evenly spread.

    Raises InputError where there is none.
    """
    with open_table(str(source), sys.stdin.buffer) as table:
        found = [table.folder / row.filename for row in table.rows()]
    if not found:
        raise InputError(f"{source} lists no image")
    kept = min(count, len(found))
    return [found[index * len(found) // kept] for index in range(kept)]


def photographs(folder: Path, count: int) -> list[Path]:
    """Drawn JPEG files of 200 to 640 pixels to a side, with the statistics of photographs."""
    paths = [folder / f"{index:04}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(draw_image(index))
    return paths


def mixed_pictures(folder: Path, count: int) -> list[Path]:
    """The same pictures in files of several formats and modes."""
    paths = []
    for index in range(count):
        suffix, convert, options = _KINDS[index % len(_KINDS)]
        paths.append(folder / f"{index:04}.{suffix}")
        with Image.open(BytesIO(draw_image(index))) as image:
            convert(image).save(paths[-1], **options)
    return paths
