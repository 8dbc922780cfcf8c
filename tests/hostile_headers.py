"""Headers that lie: about the size, the palette, the colours, the place of what follows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL import Image

HUGE = 65_500
LARGE = 13_000  # its square is within the limit of pixels: a decoder begins, and takes memory

_SIZES = ((HUGE, HUGE), (LARGE, LARGE), (0, 0), (HUGE, 1), (1, HUGE))


def lies() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file."""
    for width, height in _SIZES:
        for name, data in _sized(width, height):
            yield f"size-{width}x{height}-{name}", data
    yield from _palettes()
    yield from _containers()


def _sized(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """Small files of real encoders that announce another size than they have."""
    for progressive in (False, True):
        jpeg = _encode("JPEG", progressive=progressive)
        at = jpeg.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
        yield f"{progressive}.jpeg", _patched(jpeg, at, struct.pack(">HH", height, width))
    for bits, colour in ((8, 2), (8, 3), (16, 6), (1, 0)):
        for interlaced in (0, 1):
            pixels = zlib.compress(bytes(5000))
            size = struct.pack(">II5B", width, height, bits, colour, 0, 0, interlaced)
            name = f"{bits}-{colour}-{interlaced}.png"
            yield name, png(size, (b"PLTE", bytes(768)), (b"IDAT", pixels))
    yield (
        "a.gif",
        _patched(
            _patched(gif := _encode("GIF"), 6, struct.pack("<HH", width, height)),
            gif.index(b",", 13 + 3 * 2) + 5,
            struct.pack("<HH", width, height),
        ),
    )
    yield "a.bmp", _patched(_encode("BMP"), 18, struct.pack("<ii", width, height))
    yield "up.bmp", _patched(_encode("BMP"), 18, struct.pack("<ii", width, -height))
    yield "a.tga", _patched(_encode("TGA"), 12, struct.pack("<HH", width, height))
    yield "a.ppm", f"P6 {width} {height} 255\n".encode() + bytes(99)
    yield "a.pfm", f"Pf\n{width} {height}\n-1.0\n".encode() + bytes(99)
    yield "plain.ppm", f"P3 {width} {height} 255\n".encode() + b"1 " * 99
    yield "a.qoi", _patched(_encode("QOI"), 4, struct.pack(">II", width, height))
    yield "a.dds", _patched(_encode("DDS"), 12, struct.pack("<II", height, width))
    yield "a.pcx", _patched(_encode("PCX"), 8, struct.pack("<HH", width & 0xFFFF, height & 0xFFFF))
    yield "a.sgi", _patched(_encode("SGI"), 6, struct.pack(">HH", width, height))
    lossy = _encode("WEBP")
    yield "a.webp", _patched(lossy, 26, struct.pack("<HH", width & 0x3FFF, height & 0x3FFF))
    canvas = struct.pack("<I", max(width, 1) - 1)[:3] + struct.pack("<I", max(height, 1) - 1)[:3]
    extended = struct.pack("<4sII", b"VP8X", 10, 2) + canvas
    riff = extended + lossy[12:]
    yield "canvas.webp", b"RIFF" + struct.pack("<I", len(riff) + 4) + b"WEBP" + riff
    jp2 = _encode("JPEG2000")
    at = jp2.index(b"\xff\x51") + 6
    yield "a.jp2", _patched(jp2, at, struct.pack(">II", width, height))
    yield (
        "tiles.jp2",
        _patched(
            _patched(jp2, at, struct.pack(">II", width, height)), at + 16, struct.pack(">II", 1, 1)
        ),
    )
    for tag, value in ((0x0100, width), (0x0101, height), (0x0116, height), (0x0117, 1 << 31)):
        yield f"{tag:x}.tiff", _tiff_with(_encode("TIFF"), {tag: value})
        yield (
            f"{tag:x}-lzw.tiff",
            _tiff_with(
                _encode("TIFF", compression="tiff_lzw"), {0x0100: width, 0x0101: height, tag: value}
            ),
        )


def _palettes() -> Iterator[tuple[str, bytes]]:
    """Palettes that are missing, too long, too short, or said to be elsewhere."""
    size = struct.pack(">II5B", 64, 64, 8, 3, 0, 0, 0)
    pixels = (b"IDAT", zlib.compress((b"\0" + b"\xff" * 64) * 64))
    for length in (0, 1, 3, 765, 771, 60_000):
        yield f"palette-{length}.png", png(size, (b"PLTE", bytes(length)), pixels)
    yield "palette-none.png", png(size, pixels)
    yield "palette-many.png", png(size, *[(b"PLTE", bytes(768))] * 2_000, pixels)
    yield "palette-alpha.png", png(size, (b"PLTE", bytes(3)), (b"tRNS", bytes(60_000)), pixels)
    for count in (0, 1, 257, 1 << 31, (1 << 32) - 1):
        bmp = _patched(_encode("BMP", "P"), 46, struct.pack("<I", count))
        yield f"palette-{count}.bmp", bmp
        yield f"palette-{count}-away.bmp", _patched(bmp, 10, struct.pack("<I", count))
    tga = _encode("TGA", "P")
    for start, length in ((65_535, 256), (0, 65_535), (0, 0)):
        yield f"palette-{start}-{length}.tga", _patched(tga, 3, struct.pack("<HH", start, length))
    gif = _encode("GIF", "P")
    yield "palette-none.gif", _patched(gif, 10, b"\0")
    yield "palette-short.gif", gif[:13]
    yield "palette.tiff", _tiff_with(_encode("TIFF", "P"), {0x0140: 1 << 31})


def _containers() -> Iterator[tuple[str, bytes]]:
    """Pictures in pictures: icons whose entries lie, and contain each other."""
    inner = png(struct.pack(">II5B", HUGE, HUGE, 8, 2, 0, 0, 0), (b"IDAT", zlib.compress(b"")))
    small = _encode("PNG")
    for name, payload in (("huge", inner), ("small", small), ("jpeg", _encode("JPEG"))):
        entry = struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, len(payload), 22)
        yield f"icon-{name}.ico", struct.pack("<3H", 0, 1, 1) + entry + payload
        yield f"icon-{name}.cur", struct.pack("<3H", 0, 2, 1) + entry + payload
        for kind in (b"ic10", b"ic07", b"is32"):
            block = kind + struct.pack(">I", len(payload) + 8) + payload
            head = b"icns" + struct.pack(">I", len(block) + 8)
            yield f"icon-{name}-{kind.decode()}.icns", head + block
    entry = struct.pack("<4B2H2I", 0, 0, 0, 0, 1, 32, 1 << 31, 22)
    yield "icon-many.ico", struct.pack("<3H", 0, 1, 65_535) + entry * 65_535
    yield (
        "icon-itself.ico",
        struct.pack("<3H", 0, 1, 1) + struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, 22, 0),
    )
    yield "icon-endless.icns", b"icns" + struct.pack(">I", 1 << 31) + b"ic10" + bytes(4) * 500
    frames = [Image.new("RGB", (40, 30), (number, 0, 0)) for number in range(3)]
    file = BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    mpo = file.getvalue()
    at = mpo.index(b"MPF\0") + 4
    for number in range(8, 66, 4):
        yield f"index-{number}.mpo", _patched(mpo, at + number, b"\xff\xff\xff\xff")


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with right checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, payload in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + payload))
        parts += [struct.pack(">I", len(payload)), kind, payload, checksum]
    return b"".join(parts)


def _encode(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _tiff_with(data: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF with other values in the fields of its first directory."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, at)
        if tag in values:
            data = _patched(data, at + 2, struct.pack("<HII", 4, 1, values[tag]))
    return data
