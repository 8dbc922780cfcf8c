"""Recognise the plain JPEG, PNG and WebP files whose pixels OpenCV decodes exactly as Pillow does.

A whitelist, read from the file's structure and never from its pixels: whatever is unusual, damaged
or merely unknown is not plain, and Pillow decodes it. The dangerous direction is a file that OpenCV
accepts and Pillow refuses, or decodes otherwise; each rule that closes such a case says so.
"""

from __future__ import annotations

from trtdet.engine.jpeg_header import read_jpeg
from trtdet.engine.plain_header import PlainHeader
from trtdet.engine.png_header import PNG_SIGNATURE, read_png
from trtdet.engine.webp_header import read_webp


def read_plain_header(data: bytes) -> PlainHeader | None:
    """The header of a plain file, or None where Pillow has to decide. Never raises."""
    if data.startswith(b"\xff\xd8\xff"):
        header = read_jpeg(data)
    elif data.startswith(PNG_SIGNATURE):
        header = read_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = read_webp(data)
    else:
        return None
    return header if header is not None and header.width and header.height else None
