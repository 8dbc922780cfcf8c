"""Plain JPEG files: ITU-T T.81, annex B. See `headers` for what plain means."""

from __future__ import annotations

import re
import struct

from trtdet.engine.plain_header import PlainHeader

_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length with its own two bytes
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_SOF0, _SOF1, _SOF2, _DHT, _SOS, _DQT, _DRI, _COM = 0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_EOI = b"\xff\xd9"

# Inside a scan 0xFF is followed by 0 (an escaped byte) or by a restart marker; else the scan ends.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")

# The sampling factors of Y in 4:4:4, 4:2:2 and 4:2:0, where Cb and Cr have 1x1.
_LUMA_SAMPLINGS = (0x11, 0x21, 0x22)


def read_jpeg(data: bytes) -> PlainHeader | None:
    """The header of a plain JPEG file, or None where Pillow has to decide."""
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
