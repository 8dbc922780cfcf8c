"""What a plain image file says of itself: the record that its three readers share."""

from __future__ import annotations

from typing import Literal, NamedTuple

PlainFormat = Literal["JPEG", "PNG", "WEBP"]


class PlainHeader(NamedTuple):
    """What the file says of itself. `width` and `height` are in pixels, and positive."""

    format: PlainFormat
    width: int
    height: int
    metadata: bool = False  # holds a record that may make Pillow's open() refuse: ask it first
    picture: slice | None = None  # of an extended WebP: the chunk to decode, see `simple_webp`
