"""Recognise the plain JPEG, PNG and WebP files whose pixels OpenCV decodes exactly as Pillow does.

A whitelist, read from the file's structure and never from its pixels: whatever is unusual, damaged
or merely unknown is not plain, and Pillow decodes it. The dangerous direction is a file that OpenCV
accepts and Pillow refuses, or decodes otherwise; each rule that closes such a case says so.

Sources: JPEG is ITU-T T.81, annex B; PNG is the W3C's third edition; WebP is RFC 9649.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Literal, NamedTuple

PlainFormat = Literal["JPEG", "PNG", "WEBP"]


class PlainHeader(NamedTuple):
    """What the file says of itself. `width` and `height` are in pixels, and positive."""

    format: PlainFormat
    width: int
    height: int
    metadata: bool = False  # holds a record that may make Pillow's open() refuse: ask it first
    picture: slice | None = None  # of an extended WebP: the chunk to decode, see `simple_webp`


def read_plain_header(data: bytes) -> PlainHeader | None:
    """The header of a plain file, or None where Pillow has to decide. Never raises."""
    if data.startswith(b"\xff\xd8\xff"):
        header = _read_jpeg(data)
    elif data.startswith(_PNG_SIGNATURE):
        header = _read_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = _read_webp(data)
    else:
        return None
    return header if header is not None and header.width and header.height else None


# JPEG ---------------------------------------------------------------------------------------------

_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length with its own two bytes
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_SOF0, _SOF1, _SOF2, _DHT, _SOS, _DQT, _DRI, _COM = 0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_EOI = b"\xff\xd9"

# Inside a scan 0xFF is followed by 0 (an escaped byte) or by a restart marker; else the scan ends.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")

# The sampling factors of Y in 4:4:4, 4:2:2 and 4:2:0, where Cb and Cr have 1x1.
_LUMA_SAMPLINGS = (0x11, 0x21, 0x22)


def _read_jpeg(data: bytes) -> PlainHeader | None:
    # A truncated file seldom ends in EOI; where it does, libjpeg stops there in both libraries.
    if not data.endswith(_EOI):
        return None
    frame: tuple[int, int, int, bool] | None = None  # width, height, components, progressive
    metadata = False
    position = 2
    while True:
        segment = _jpeg_segment(data, position)
        if segment is None:
            return None
        marker, begin, position = segment
        if marker == _SOS:
            break
        if marker in (_SOF0, _SOF1, _SOF2):
            if frame is not None or (frame := _jpeg_frame(marker, data[begin:position])) is None:
                return None
        elif marker == _DQT:
            if not _jpeg_tables_are_whole(data, begin, position):
                return None
        elif 0xE0 <= marker <= 0xEF:
            verdict = _jpeg_application(marker, data[begin:position])
            if verdict is None:
                return None
            metadata |= verdict
        elif marker not in (_DHT, _DRI, _COM):
            return None
    if frame is None:
        return None
    width, height, components, progressive = frame
    if not _jpeg_scans_end_the_file(data, begin, position, components, progressive):
        return None
    return PlainHeader("JPEG", width, height, metadata)


def _jpeg_segment(data: bytes, position: int) -> tuple[int, int, int] | None:
    """(marker, begin of its payload, end of its payload) of the segment at `position`."""
    if position + 4 > len(data):
        return None
    prefix, marker, length = _SEGMENT.unpack_from(data, position)
    end = position + 2 + length
    if prefix != 0xFF or length < 2 or end > len(data):
        return None
    return marker, position + 4, end


def _jpeg_frame(marker: int, payload: bytes) -> tuple[int, int, int, bool] | None:
    if len(payload) < _FRAME.size:
        return None
    bits, height, width, components = _FRAME.unpack_from(payload)
    if bits != 8 or len(payload) != _FRAME.size + 3 * components:
        return None
    if components == 3:
        # Other ids may mean RGB, and other samplings are too rare to be worth a proof.
        if payload[6::3] != b"\1\2\3" or payload[10] != 0x11 or payload[13] != 0x11:
            return None
        if payload[7] not in _LUMA_SAMPLINGS:
            return None
    elif components != 1 or payload[7] != 0x11:
        return None
    return width, height, components, marker == _SOF2


def _jpeg_tables_are_whole(data: bytes, begin: int, end: int) -> bool:
    """Pillow refuses a quantization segment that does not end with a table; libjpeg may not."""
    while begin < end:
        begin += 1 + (128 if data[begin] >> 4 else 64)
    return begin == end


def _jpeg_application(marker: int, payload: bytes) -> bool | None:
    """Whether Pillow parses this application segment at open(); None: the file is not plain."""
    if marker == 0xE0 and payload.startswith(b"JFIF"):
        return False if len(payload) >= 14 else None
    if marker == 0xE2 and payload.startswith(b"MPF\0"):
        return None  # several pictures in one file
    if marker == 0xEE and payload.startswith(b"Adobe"):
        # Transform 0 is RGB or CMYK; 1 is YCbCr, what a file without this segment holds too.
        return False if len(payload) >= 12 and payload[11] == 1 else None
    return payload.startswith((b"Exif\0\0", b"Photoshop 3.0\0", b"ICC_PROFILE\0"))


def _jpeg_scans_end_the_file(
    data: bytes, begin: int, position: int, components: int, progressive: bool
) -> bool:
    """Whether nothing but whole scans lies between the first scan header and a final EOI.

    OpenCV returns a picture whose last row it has; Pillow goes on and refuses the file if a wrong
    segment follows. So a sequential file holds one scan, a progressive one scans and their tables.
    """
    last = len(data) - len(_EOI)
    if not progressive and data[begin] != components:
        return False
    while True:
        match = _END_OF_SCAN.search(data, position)
        if match is None:
            return False
        if match.start() == last:
            return match.group() == _EOI
        if not progressive:
            return False
        marker, position = _DHT, match.start()
        while marker == _DHT:
            segment = _jpeg_segment(data, position)
            if segment is None:
                return False
            marker, _, position = segment
        if marker != _SOS:
            return False


# PNG ----------------------------------------------------------------------------------------------

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">II5B")  # width, height; bits, colour, compression, filter, interlace
_CHUNK = struct.Struct(">I4s")  # length, kind
_CRC = struct.Struct(">I")

# Chunks that cannot change Pillow's verdict at this length; it refuses a file where one is shorter.
_PNG_FIXED = {b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"tIME": 7}
# Chunks that Pillow parses and may refuse: plain before the pixels, where open() sees them.
_PNG_METADATA = (b"iCCP", b"iTXt", b"zTXt", b"eXIf")
# Far below the 64 MiB of text that Pillow accepts in one file.
_PNG_TEXT_LIMIT = 1 << 20


def _read_png(data: bytes) -> PlainHeader | None:
    view = memoryview(data)
    size: tuple[int, int] | None = None
    metadata, text, pixels, after = False, 0, False, False
    position = len(_PNG_SIGNATURE)
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


# WebP ---------------------------------------------------------------------------------------------

_RIFF_CHUNK = struct.Struct("<4sI")
_VP8 = struct.Struct("<3s3sHH")  # frame tag, start code, width and height under two bits of scale
_VP8L = struct.Struct("<BI")  # signature; 14 bits width - 1, 14 bits height - 1, alpha, version
# VP8X's flags; any other is alpha, animation, or reserved.
_VP8X_ICC, _VP8X_EXIF, _VP8X_XMP = 0x20, 0x08, 0x04


def simple_webp(chunk: bytes) -> bytes:
    """A WebP file of one picture chunk alone.

    In an extended file, OpenCV's decoder takes the metadata behind a damaged picture for more of
    its pixels and accepts it. Pillow cuts the chunk out.
    """
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


def _read_webp(data: bytes) -> PlainHeader | None:
    chunks = _riff_chunks(data)
    if not chunks or _may_be_an_older_format(data):
        return None
    kind, begin, end = chunks[0]
    if kind != b"VP8X":
        size = _webp_picture_size(data, chunks[0])
        return PlainHeader("WEBP", *size) if size is not None and len(chunks) == 1 else None
    flags = int.from_bytes(data[begin : begin + 4], "little")
    if end - begin != 10 or flags & ~(_VP8X_ICC | _VP8X_EXIF | _VP8X_XMP):
        return None
    before = [b"ICCP"] if flags & _VP8X_ICC else []
    after = [b"EXIF"] if flags & _VP8X_EXIF else []
    after += [b"XMP "] if flags & _VP8X_XMP else []
    picture = chunks[1 + len(before)] if len(chunks) == 2 + len(before) + len(after) else None
    kinds = [kind for kind, _, _ in chunks[1:]]
    if picture is None or kinds != [*before, picture[0], *after]:
        return None
    width = 1 + int.from_bytes(data[begin + 4 : begin + 7], "little")
    height = 1 + int.from_bytes(data[begin + 7 : begin + 10], "little")
    if _webp_picture_size(data, picture) != (width, height):
        return None
    _, begin, end = picture
    return PlainHeader("WEBP", width, height, picture=slice(begin - 8, end + (end - begin & 1)))


def _riff_chunks(data: bytes) -> list[tuple[bytes, int, int]] | None:
    """(kind, begin, end) of each chunk, or None unless they fill the file exactly."""
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        return None
    chunks = []
    position = 12
    while position + 8 <= len(data):
        kind, length = _RIFF_CHUNK.unpack_from(data, position)
        chunks.append((kind, position + 8, position + 8 + length))
        position += 8 + length + (length & 1)
    return chunks if position == len(data) else None


def _webp_picture_size(data: bytes, chunk: tuple[bytes, int, int]) -> tuple[int, int] | None:
    kind, begin, end = chunk
    if kind == b"VP8 " and end - begin >= _VP8.size:
        tag, start, width, height = _VP8.unpack_from(data, begin)
        if start != b"\x9d\x01\x2a" or tag[0] & 1:  # bit 0 of the tag: not a key frame
            return None
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and end - begin >= _VP8L.size:
        signature, bits = _VP8L.unpack_from(data, begin)
        if signature != 0x2F or bits >> 28:  # bit 28 is alpha, the rest the version
            return None
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _may_be_an_older_format(data: bytes) -> bool:
    """Pillow asks three formats without a magic number before WebP, so a forged file may be both.

    IM begins with "key: value" lines, PCD has its name at byte 2048, SPIDER a kind at byte 16.
    """
    first_line = data[: data.find(b"\n", 0, 101) + 1]
    spider_kinds = (1.0, 3.0, -11.0, -12.0, -21.0, -22.0)
    return (
        b":" in first_line
        or data[2048:2052] == b"PCD_"
        or any(struct.unpack_from(order, data, 16)[0] in spider_kinds for order in ("<f", ">f"))
    )
