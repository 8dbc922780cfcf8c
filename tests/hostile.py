"""Files that were made to hurt: a deterministic corpus of hostile images, from real encoders.

`python -m tests.hostile FOLDER` writes all of it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile_bombs import bombs
from tests.hostile_headers import lies

# What Pillow writes, and the mode that goes with it. A format that this Pillow lacks is left out.
MODES = {
    "JPEG": ("RGB", "CMYK", "L"),
    "PNG": ("RGBA", "P", "I;16"),
    "WEBP": ("RGBA",),
    "AVIF": ("RGB",),
    "GIF": ("P",),
    "TIFF": ("RGB", "CMYK", "LAB", "F"),
    "BMP": ("RGB", "P"),
    "DIB": ("RGB",),
    "PPM": ("RGB",),
    "ICO": ("RGBA",),
    "ICNS": ("RGBA",),
    "MPO": ("RGB",),
    "TGA": ("RGBA",),
    "JPEG2000": ("RGB",),
    "PCX": ("P",),
    "SGI": ("RGB",),
    "DDS": ("RGBA",),
    "QOI": ("RGBA",),
    "IM": ("RGB",),
    "XBM": ("1",),
    "MSP": ("1",),
    "SPIDER": ("F",),
    "BLP": ("P",),
    "EPS": ("RGB",),
}
_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}],
    "WEBP": [{}, {"lossless": True}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}],
    "TGA": [{"compression": "tga_rle"}],
}


def hostile_files(every: int = 1) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file. `every`: so many times fewer of the damaged ones."""
    sources = list(encoded())
    rng = random.Random(7)
    suffixes = sorted({name.rsplit(".", 1)[1] for name, _ in sources})
    for name, data in sources:
        stem, suffix = name.rsplit(".", 1)
        for at in range(0, len(data), 64 * every):
            yield f"cut-{at}-{name}", data[:at]
        for number in range(-(-24 // every)):
            yield f"flip-{number}-{name}", _flipped(data, rng)
        wrong = suffixes[(suffixes.index(suffix) + 1) % len(suffixes)]
        yield f"called-{stem}.{wrong}", data
        yield f"begins-{name}", data[:16] + rng.randbytes(5000)
    yield from odd_shapes()
    yield from lies()
    yield from bombs()


def encoded() -> Iterator[tuple[str, bytes]]:
    """A small picture in every format, mode and compression: whole files, the rest's sources."""
    Image.init()
    rgba, plain = _picture(), Image.new("RGBA", (48, 36), (200, 30, 90, 128))
    for image_format, modes in MODES.items():
        for mode in modes if image_format in Image.SAVE else ():
            for number, options in enumerate(_OPTIONS.get(image_format, [{}])):
                # An ICNS file holds its picture up to 1024 x 1024.
                source = plain if image_format == "ICNS" else rgba
                image = source if mode == "RGBA" else source.convert("RGB").convert(mode)
                name = f"{mode.replace(';', '')}-{number}.{image_format.lower()}"
                try:
                    yield name, encode(image, image_format, **options)
                except (OSError, ValueError, KeyError):
                    continue  # an older Pillow does not write this


def odd_shapes() -> Iterator[tuple[str, bytes]]:
    """Threads of pictures, and pixels that are no numbers."""
    for width, height in ((1, 100_000), (100_000, 1), (1, 1), (1, 65_500), (65_500, 1)):
        image = Image.new("RGB", (width, height), (200, 30, 90))
        for image_format in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
            try:
                yield f"shape-{width}x{height}.{image_format.lower()}", encode(image, image_format)
            except (OSError, ValueError):
                continue  # a JPEG has at most 65,500 rows, a WebP 16,383
    noise = np.random.default_rng(3).normal(0, 1e30, (60, 60)).astype(np.float32)
    noise[::3], noise[1::3] = np.nan, np.inf
    yield "shape-nan.tiff", encode(Image.fromarray(noise), "TIFF")


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of a file."""
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _picture() -> Image.Image:
    rng = np.random.default_rng(11)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 4), dtype=np.uint8))
    smooth = np.asarray(small.resize((48, 36), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = smooth + rng.integers(-9, 10, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bits, most of them where the header is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        reach = len(data) if rng.random() < 0.4 else min(len(data), 256)
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def write_corpus(folder: Path, every: int = 1) -> list[Path]:
    """Every file, in order."""
    paths = []
    for name, data in hostile_files(every):
        path = folder / name
        path.write_bytes(data)
        paths.append(path)
    return paths


if __name__ == "__main__":
    print(len(write_corpus(Path(sys.argv[1]))), "files")
