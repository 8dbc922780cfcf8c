"""Plain PNG files: the W3C's third edition. See `headers` for what plain means."""

from __future__ import annotations

import struct
import zlib

from trtdet.engine.plain_header import PlainHeader

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">II5B")  # width, height; bits, colour, compression, filter, interlace
_CHUNK = struct.Struct(">I4s")  # length, kind
_CRC = struct.Struct(">I")

# Chunks that cannot change Pillow's verdict at this length; it refuses a file where one is shorter.
_PNG_FIXED = {b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"tIME": 7}
# Chunks that Pillow parses and may refuse: plain before the pixels, where open() sees them.
_PNG_METADATA = (b"iCCP", b"iTXt", b"zTXt", b"eXIf")
# Far below the 64 MiB of text that Pillow accepts in one file.
_PNG_TEXT_LIMIT = 1 << 20


def read_png(data: bytes) -> PlainHeader | None:
    """The header of a plain PNG file, or None where Pillow has to decide."""
    view = memoryview(data)
    size: tuple[int, int] | None = None
    metadata, text, pixels, after = False, 0, False, False
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, position)
        begin, end = position + 8, position + 8 + length
        # libpng checks every CRC, Pillow those of some chunks: a plain file has them all right.
        if (
            end + 4 > len(data)
            or zlib.crc32(view[begin - 4 : end]) != _CRC.unpack_from(data, end)[0]
        ):
            return None
        position = end + 4
        if size is None:
            if kind != b"IHDR" or (size := _png_size(data[begin:end])) is None:
                return None
        elif kind == b"IDAT" and not after:
            pixels = True
        elif kind == b"IEND":
            plain = pixels and length == 0 and position == len(data)
            return PlainHeader("PNG", *size, metadata) if plain else None
        elif kind in _PNG_FIXED:
            if length != _PNG_FIXED[kind]:
                return None
            after = pixels
        elif kind == b"tEXt" and not (pixels and metadata):
            text += length
            if text > _PNG_TEXT_LIMIT:
                return None
            after = pixels
        elif kind in _PNG_METADATA and not pixels:
            metadata = True
        else:
            return None
    return None


def _png_size(payload: bytes) -> tuple[int, int] | None:
    if len(payload) != _IHDR.size:
        return None
    width, height, *layout = _IHDR.unpack(payload)
    # 8 bits of grey, RGB or RGBA; the only compression and filters there are; not interlaced.
    return (
        (width, height) if layout in ([8, 0, 0, 0, 0], [8, 2, 0, 0, 0], [8, 6, 0, 0, 0]) else None
    )
