"""Plain WebP files: RFC 9649. See `headers` for what plain means."""

from __future__ import annotations

import struct

from trtdet.engine.plain_header import PlainHeader

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


def read_webp(data: bytes) -> PlainHeader | None:
    """The header of a plain WebP file, or None where Pillow has to decide."""
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
