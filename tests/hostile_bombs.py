"""Small files that unpack to much, or keep a decoder busy: metadata, frames, scans, directories."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO

from PIL import Image

from tests.hostile_headers import png

_IHDR = struct.pack(">II5B", 64, 64, 8, 2, 0, 0, 0)
_PIXELS = (b"IDAT", zlib.compress((b"\0" + bytes(192)) * 64))


def bombs() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file."""
    yield from _png_bombs()
    yield from _frames()
    yield from _exif()
    yield from _directories()
    for fill in (b"\0", b"\xff", b"P6 ", b"<svg>", b"%!PS\n", b"II*\0", b"\xff\xd8"):
        yield f"fill-{fill.hex()}.jpg", fill * (200_000 // len(fill))
    yield "comments.jpg", _with_segments([(0xFE, bytes(65_000))] * 50)
    yield "tables.jpg", _with_segments([(0xDB, b"\0" + b"\1" * 64)] * 20_000)
    yield (
        "profiles.jpg",
        _with_segments(
            [(0xE2, b"ICC_PROFILE\0" + bytes([1 + n % 255, 255]) + bytes(9)) for n in range(5000)]
        ),
    )


@cache
def scan_bomb(side: int = 4000, scans: int = 8000) -> bytes:
    """A progressive JPEG whose last scans come again and again: minutes of work in a megabyte.

    Each is a valid refinement of all blocks, in a hundred bytes.
    https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf
    """
    file = BytesIO()
    Image.new("RGB", (side, side), (90, 120, 200)).save(file, "JPEG", progressive=True, quality=90)
    data = file.getvalue()
    begin = [each.start() for each in re.finditer(rb"\xff\xc4", data)][-1]
    return data[:-2] + data[begin:-2] * scans + data[-2:]


def _png_bombs() -> Iterator[tuple[str, bytes]]:
    bomb = _zipped_zeros(300 << 20)
    for name, chunk in {
        "iccp": (b"iCCP", b"x\0\0" + bomb),
        "ztxt": (b"zTXt", b"x\0\0" + bomb),
        "itxt": (b"iTXt", b"x\0\1\0\0\0" + bomb),
        "exif": (b"eXIf", b"MM\0*" + b"\xff" * 400_000),
    }.items():
        yield f"bomb-{name}.png", png(_IHDR, chunk, _PIXELS)
        yield f"bomb-{name}-behind.png", png(_IHDR, _PIXELS, chunk)
        yield f"bomb-{name}-many.png", png(_IHDR, *[chunk] * 4, _PIXELS)
    yield "bomb-pixels.png", png(_IHDR, (b"IDAT", bomb))
    yield "bomb-pixels-many.png", png(_IHDR, *[(b"IDAT", bomb[:60_000])] * 50)
    yield "bomb-tiny-chunks.png", png(_IHDR, *[(b"tEXt", b"k\0v")] * 200_000, _PIXELS)
    yield "bomb-no-pixels.png", png(_IHDR, *[(b"IDAT", b"")] * 200_000)


def _frames() -> Iterator[tuple[str, bytes]]:
    head = b"GIF89a" + struct.pack("<HH3B", 64, 64, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<4HB", 0, 0, 64, 64, 0) + b"\2\4\x84\x8f\xa9\x05\0"
    yield "frames-10000.gif", head + frame * 10_000 + b";"
    yield "frames-end.gif", head + frame * 10_000
    yield "frames-extensions.gif", head + b"!\xfe\1x\0" * 200_000 + frame + b";"
    wide = b"," + struct.pack("<4HB", 65_000, 65_000, 65_000, 65_000, 0) + b"\2\1\x44\0"
    yield "frames-outside.gif", head + wide * 1000 + b";"
    control = struct.pack(">6I2H2B", 0, 64, 64, 0, 0, 1, 10, 0, 0, 0)[4:]
    animation = [(b"acTL", struct.pack(">II", 10_000, 0))]
    for number in range(10_000):
        animation.append((b"fcTL", struct.pack(">I", number) + control[:20] + bytes(2)))
    yield "frames.png", png(_IHDR, *animation, _PIXELS)
    for image_format in ("WEBP", "TIFF", "AVIF"):
        pictures = [Image.new("RGB", (16, 16), (number % 256, 0, 9)) for number in range(300)]
        file = BytesIO()
        try:
            pictures[0].save(file, image_format, save_all=True, append_images=pictures[1:])
        except (KeyError, OSError):
            continue  # this Pillow does not write it
        yield f"frames.{image_format.lower()}", file.getvalue()


def _exif() -> Iterator[tuple[str, bytes]]:
    """Orientation and resolution that are no numbers, and directories that hold each other."""
    nan, infinite = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))
    for name, entries in {
        "nan": [(0x011A, 11, 1, nan), (0x0112, 11, 1, nan), (0x0128, 3, 1, b"\2\0\0\0")],
        "inf": [(0x011A, 11, 1, infinite), (0x0128, 3, 1, b"\2\0\0\0")],
        "zero": [(0x011A, 5, 1, struct.pack("<I", 26)), (0x0128, 3, 1, b"\3\0\0\0")],
        "far": [(0x011A, 5, 1, b"\xff\xff\xff\x7f"), (0x0128, 3, 1, b"\2\0\0\0")],
        "many": [(0x011A, 5, 0xFFFFFFFF, b"\0\0\0\0")],
        "types": [(0x0100 + kind, kind, 9, b"\x08\0\0\0") for kind in range(30)],
        "itself": [(0x8769, 4, 1, b"\x08\0\0\0"), (0xA005, 4, 1, b"\x08\0\0\0")],
        "gps": [(0x8825, 4, 1, b"\x08\0\0\0")],
    }.items():
        record = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
        for tag, kind, count, value in entries:
            record += struct.pack("<HHI", tag, kind, count) + value
        record += struct.pack("<I", 8) + bytes(64)  # the next directory is this one
        yield f"exif-{name}.jpg", _with_segments([(0xE1, b"Exif\0\0" + record)])
        yield f"exif-{name}.png", png(_IHDR, (b"eXIf", record), _PIXELS)
        image, file = Image.new("RGB", (64, 64), (9, 99, 199)), BytesIO()
        image.save(file, "WEBP", exif=record)
        yield f"exif-{name}.webp", file.getvalue()


def _directories() -> Iterator[tuple[str, bytes]]:
    """TIFF: directories without end."""
    entry = struct.pack("<HHII", 0x0100, 4, 1, 64)
    yield "directory-itself.tiff", b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\x08\0\0\0"
    yield "directory-wide.tiff", b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + entry * 65_535
    links = [struct.pack("<H", 1) + entry + struct.pack("<I", 8 + 18 * n) for n in range(1, 50_000)]
    yield "directory-many.tiff", b"II*\0\x08\0\0\0" + b"".join(links)
    image, file = Image.new("RGB", (64, 64), (9, 99, 199)), BytesIO()
    image.save(file, "TIFF")
    data = file.getvalue()
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    end = at + 2 + 12 * count
    yield "directory-again.tiff", data[:end] + struct.pack("<I", at) + data[end + 4 :]
    for number in range(count):
        field = at + 2 + 12 * number
        for kind, name in ((b"\xff\xff\xff\xff", "count"), (b"\0\0\0\0", "none")):
            yield f"directory-{number}-{name}.tiff", data[: field + 4] + kind + data[field + 8 :]


def _with_segments(segments: list[tuple[int, bytes]]) -> bytes:
    """A JPEG with these marker segments in front."""
    file = BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 199)).save(file, "JPEG")
    data = file.getvalue()
    made = [struct.pack(">BBH", 255, each, len(body) + 2) + body for each, body in segments]
    return data[:2] + b"".join(made) + data[2:]


def _zipped_zeros(size: int) -> bytes:
    packer = zlib.compressobj(1)
    part = bytes(1 << 20)
    return b"".join([packer.compress(part) for _ in range(size >> 20)]) + packer.flush()
