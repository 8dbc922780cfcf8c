"""Which files are plain, so that the fast path neither vanishes nor grows unnoticed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from trtdet.engine.headers import read_plain_header
from trtdet.engine.plain_header import PlainHeader
from trtdet.engine.webp_header import simple_webp

EXIF = Image.Exif()
EXIF[0x0112] = 6  # rotated by a quarter


def encode(image_format: str, mode: str = "RGB", size: tuple[int, int] = (35, 21), **options: Any):
    """The bytes of a noisy image."""
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    """A PNG chunk with a right CRC."""
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def png(*between: bytes, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A 2x1 RGB file by hand: IHDR, then `between`, then IEND."""
    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(between) + chunk(b"IEND")


IDAT = chunk(b"IDAT", zlib.compress(b"\0abcdef"))


def segment(marker: int, payload: bytes = b"") -> bytes:
    """A JPEG marker segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def with_segment(marker: int, payload: bytes, **options: Any) -> bytes:
    """A JPEG with one more segment behind SOI."""
    jpeg = encode("JPEG", **options)
    return jpeg[:2] + segment(marker, payload) + jpeg[2:]


def before_eoi(inserted: bytes, **options: Any) -> bytes:
    return encode("JPEG", **options)[:-2] + inserted + b"\xff\xd9"


def changed(data: bytes, find: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(find) + offset
    return data[:at] + value + data[at + len(value) :]


def text_chunks() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat", zip=True)
    return info


PLAIN: dict[str, Callable[[], bytes]] = {
    "jpeg 4:4:4": lambda: encode("JPEG", subsampling=0),
    "jpeg 4:2:2": lambda: encode("JPEG", subsampling=1),
    "jpeg 4:2:0": lambda: encode("JPEG", subsampling=2),
    "jpeg grey": lambda: encode("JPEG", "L"),
    "jpeg progressive": lambda: encode("JPEG", progressive=True),
    "jpeg grey progressive": lambda: encode("JPEG", "L", progressive=True),
    "jpeg optimised": lambda: encode("JPEG", optimize=True, quality=95),
    "jpeg restart markers": lambda: encode("JPEG", restart_marker_blocks=1),
    "jpeg comment": lambda: encode("JPEG", comment=b"x"),
    "jpeg adobe, YCbCr": lambda: with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "png grey": lambda: encode("PNG", "L"),
    "png rgb": lambda: encode("PNG"),
    "png rgba": lambda: encode("PNG", "RGBA"),
    "png dpi": lambda: encode("PNG", dpi=(72, 72)),
    "png several IDAT": lambda: png(chunk(b"IDAT"), IDAT, chunk(b"IDAT")),
    "png text behind the pixels": lambda: png(IDAT, chunk(b"tEXt", b"a\0b")),
    "webp lossy": lambda: encode("WEBP"),
    "webp lossless": lambda: encode("WEBP", lossless=True),
}
PLAIN_WITH_METADATA: dict[str, Callable[[], bytes]] = {
    "jpeg exif": lambda: encode("JPEG", exif=EXIF),
    "jpeg icc": lambda: encode("JPEG", icc_profile=b"profile" * 9),
    "png text": lambda: encode("PNG", pnginfo=text_chunks()),
    "png exif, icc": lambda: encode("PNG", exif=EXIF, icc_profile=b"profile"),
}
OTHER: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "jpeg without EOI": lambda: encode("JPEG")[:-1],
    "jpeg and more": lambda: encode("JPEG") + b"\0",
    "jpeg CMYK": lambda: encode("JPEG", "CMYK"),
    "jpeg RGB": lambda: encode("JPEG", keep_rgb=True),
    "jpeg adobe, RGB": lambda: with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "jpeg short JFIF": lambda: with_segment(0xE0, b"JFIF\0"),
    "jpeg of several pictures": lambda: with_segment(0xE2, b"MPF\0"),
    "jpeg 4:4:0": lambda: changed(encode("JPEG"), b"\x01\x22\0", 1, b"\x12"),
    "jpeg arithmetic": lambda: changed(encode("JPEG"), b"\xff\xc0", 1, b"\xc9"),
    "jpeg 12 bit": lambda: changed(encode("JPEG"), b"\xff\xc0", 4, b"\x0c"),
    "jpeg without height": lambda: changed(encode("JPEG"), b"\xff\xc0", 5, b"\0\0"),
    "jpeg without width": lambda: changed(encode("JPEG"), b"\xff\xc0", 7, b"\0\0"),
    "jpeg half a table": lambda: with_segment(0xDB, b"\0" * 60),
    "jpeg two frames": lambda: with_segment(0xC0, b"\x08\0\x08\0\x08\1\1\x11\0"),
    "jpeg cut in the header": lambda: encode("JPEG")[:100] + b"\xff\xd9",
    "jpeg segment behind the scan": lambda: before_eoi(segment(0xC4)),
    "jpeg scan behind the scan": lambda: before_eoi(segment(0xDA)),
    "jpeg progressive, comment": lambda: before_eoi(segment(0xFE), progressive=True),
    "jpeg progressive, SOI": lambda: before_eoi(b"\xff\xd8", progressive=True),
    "jpeg padded marker": lambda: before_eoi(b"\xff"),
    "jpeg one component a scan": lambda: changed(encode("JPEG"), b"\xff\xda", 4, b"\1"),
    "png palette": lambda: encode("PNG", "P"),
    "png grey and alpha": lambda: encode("PNG", "LA"),
    "png 1 bit": lambda: encode("PNG", "1"),
    "png 16 bit": lambda: png(IDAT, depth=16),
    "png interlaced": lambda: png(IDAT, interlace=1),
    "png transparency": lambda: png(chunk(b"tRNS", bytes(6)), IDAT),
    "png animation": lambda: png(chunk(b"acTL", bytes(8)), IDAT),
    "png unknown chunk": lambda: png(chunk(b"abCd"), IDAT),
    "png short pHYs": lambda: png(chunk(b"pHYs", bytes(8)), IDAT),
    "png late profile": lambda: png(IDAT, chunk(b"iCCP", bytes(8))),
    "png pixels in two places": lambda: png(IDAT, chunk(b"tEXt"), IDAT),
    "png much text": lambda: png(chunk(b"tEXt", bytes(2_000_000)), IDAT),
    "png without pixels": lambda: png(),
    "png wrong CRC": lambda: changed(encode("PNG"), b"IDAT", 9, b"\x55\xaa\x55"),
    "png cut": lambda: encode("PNG")[:-1],
    "png and more": lambda: encode("PNG") + b"\0",
    "webp alpha": lambda: changed(encode("WEBP", exif=EXIF), b"VP8X", 8, b"\x18"),
    "webp lossless alpha": lambda: changed(encode("WEBP", lossless=True), b"VP8L", 12, b"\x10"),
    "webp animation": lambda: encode(
        "WEBP", save_all=True, append_images=[Image.new("L", (35, 21))]
    ),
    "webp cut": lambda: encode("WEBP")[:-2],
    "webp and more": lambda: encode("WEBP") + b"\0\0",
    "webp flag without chunk": lambda: changed(encode("WEBP", exif=EXIF), b"VP8X", 8, b"\x0c"),
    "webp other canvas": lambda: changed(encode("WEBP", exif=EXIF), b"VP8X", 12, b"\x23"),
    "webp of an IM's looks": lambda: simple_webp(b"VP8 \x2a\0\0\0key: value\n" + bytes(32)),
    "gif": lambda: encode("GIF"),
    "bmp": lambda: encode("BMP"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files(name: str):
    header = read_plain_header(PLAIN[name]())
    assert header is not None
    size = (2, 1) if "IDAT" in name or "behind" in name else (35, 21)
    assert header == PlainHeader({"j": "JPEG", "p": "PNG", "w": "WEBP"}[name[0]], *size)


@pytest.mark.parametrize("name", PLAIN_WITH_METADATA)
def test_plain_files_that_pillow_opens_first(name: str):
    header = read_plain_header(PLAIN_WITH_METADATA[name]())
    assert header is not None
    assert header[1:] == (35, 21, True, None)


@pytest.mark.parametrize("name", OTHER)
def test_files_left_to_pillow(name: str):
    assert read_plain_header(OTHER[name]()) is None


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
def test_the_picture_is_cut_out_of_an_extended_webp(options: dict[str, Any]):
    plain = encode("WEBP", **options)
    extended = encode("WEBP", exif=EXIF, icc_profile=b"profile", xmp=b"<x/>", **options)
    header = read_plain_header(extended)
    assert header is not None
    assert header[:3] == ("WEBP", 35, 21)
    assert header.picture is not None
    assert simple_webp(extended[header.picture]) == plain


@pytest.mark.parametrize("size", [(1, 1), (8, 1), (1, 17), (16, 16), (65500, 1), (1, 16383)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_sizes(image_format: str, size: tuple[int, int]):
    if image_format == "WEBP" and max(size) > 16383:
        pytest.skip("WebP has 14 bits for a side")
    header = read_plain_header(encode(image_format, size=size))
    assert header is not None
    assert (header.width, header.height) == size


@pytest.mark.parametrize("name", [*PLAIN, *PLAIN_WITH_METADATA])
def test_no_truncation_is_plain(name: str):
    data = {**PLAIN, **PLAIN_WITH_METADATA}[name]()
    for length in range(len(data)):
        assert read_plain_header(data[:length]) is None


@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0"]
    ),
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd9"]),
)
def test_any_bytes_have_a_verdict(begin: bytes, middle: bytes, end: bytes):
    header = read_plain_header(begin + middle + end)
    assert header is None or (header.width > 0 and header.height > 0)
