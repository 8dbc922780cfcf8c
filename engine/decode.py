"""Bytes of an image file to RGB pixels, equal to Pillow's `Image.open(...).convert("RGB")`.

Pillow decides what an image is and what its pixels are. OpenCV, which takes less time,
decodes the plain files that `headers` recognises; if it fails there, Pillow's verdict counts.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from trtdet.engine.confine import Confined, open_parent
from trtdet.engine.headers import read_plain_header
from trtdet.engine.mute import MutedCStderr
from trtdet.engine.plain_header import PlainFormat, PlainHeader
from trtdet.engine.webp_header import simple_webp
from trtdet.errors import ImageError

# Where Pillow itself stops: twice its MAX_IMAGE_PIXELS, above which it only warns.
DEFAULT_MAX_PIXELS = 178_956_970

DEFAULT_MAX_BYTES = 1 << 30

# Far beyond what a picture within the other limits takes, even on a small machine.
DEFAULT_MAX_SECONDS = 60.0

_OPENCV_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

# Ways to save the probe that must come back alike from both libraries before OpenCV is used.
_PROBES: dict[PlainFormat, list[dict[str, Any]]] = {
    "JPEG": [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2, "progressive": True}],
    "PNG": [{}],
    "WEBP": [{"quality": 80}, {"lossless": True}],
}

# What Pillow imports only when a file asks for it: the profiles of LAB, palettes, colours by name.
_LATE_IMPORTS = ("ImageCms", "ImageColor", "ImagePalette", "ImageSequence")

_muted: AbstractContextManager[None] = nullcontext()
_nobody = logging.NullHandler()  # one, however often a process sets out to decode


@dataclass(frozen=True)
class Limits:
    """What one image may cost, from its file to its pixels."""

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_bytes: int = DEFAULT_MAX_BYTES  # of the file
    max_seconds: float = DEFAULT_MAX_SECONDS


def quiet_decoders(max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Set what is process-wide about decoding. Call it once, before a run; importing sets nothing.

    Pillow's and OpenCV's warnings and log, and what the codecs print to C's `stderr` while
    `decode_rgb` runs, are silenced. A run with a limit above `DEFAULT_MAX_PIXELS` gives it here
    too, because Pillow has one of its own.
    """
    global _muted
    if not isinstance(_muted, MutedCStderr):
        _muted = MutedCStderr()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    # Without a handler of its own, Python prints a library's warnings to stderr.
    logging.getLogger("PIL").addHandler(_nobody)
    # Pillow raises above twice this number. It stays on: it also checks images inside images.
    Image.MAX_IMAGE_PIXELS = -(-max(max_pixels, DEFAULT_MAX_PIXELS) // 2)


def load_decoders() -> None:
    """Load now what `decode_rgb` loads when a file asks for it.

    For a process that opens no file, and starts no thread, once it sees images.
    """
    _load_plugins()
    for name in _LATE_IMPORTS:
        import_module(f"PIL.{name}")
    for image_format in _PROBES:
        _opencv_is_exact(image_format)
    cv2.setNumThreads(1)
    if "PIL.AvifImagePlugin" in sys.modules:
        sys.modules["PIL.AvifImagePlugin"].__dict__["DEFAULT_MAX_THREADS"] = 1


def decode_rgb(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image file. Returns uint8 [H, W, 3], read-only or not.

    The first frame of an animation; alpha is dropped and the EXIF orientation ignored, as Pillow's
    `convert("RGB")` does. Raises ImageError, with the reason in plain words, where Pillow refuses
    the file or the header announces more than `max_pixels`; then no pixel is decoded.
    """
    if not data:
        raise ImageError("the file is empty")
    with _muted:
        rgb = decode_plain(data, max_pixels=max_pixels)
        return _decode_with_pillow(data, max_pixels) if rgb is None else rgb


def decode_plain(data: bytes, *, max_pixels: int) -> NDArray[np.uint8] | None:
    """OpenCV's pixels [H, W, 3] of a plain file; None where Pillow has to decode it.

    Raises ImageError where the header announces more than `max_pixels`.
    """
    header = read_plain_header(data)
    if header is None or not _opencv_is_exact(header.format):
        return None
    _check_size(header.width, header.height, max_pixels)
    return _decode_with_opencv(data, header)


def read_image_file(
    path: str | os.PathLike[str] | Confined, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> bytes:
    """Read a whole regular file. Never blocks on a pipe or a device.

    Raises ImageError, with the reason in plain words and without the path, which the row has.
    """
    try:
        if not isinstance(path, Confined):
            return _read_regular(path, max_bytes)
        with open_parent(path) as (folder, name):
            return _read_regular(name, max_bytes, folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("file not found") from error
    except PermissionError as error:
        raise ImageError("no permission to read the file") from error
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise ImageError("the file name cannot be encoded for this file system") from error
    except ValueError as error:
        raise ImageError("the file name holds a NUL character") from error


def _read_regular(path: str | os.PathLike[str], max_bytes: int, folder: int | None = None) -> bytes:
    """With an open `folder`, what is in it and is no link."""
    links = folder is None
    status = os.stat(path, dir_fd=folder, follow_symlinks=links)
    if not stat.S_ISLNK(status.st_mode):  # open() has the reason why it may not be followed
        _check_file(status, max_bytes)  # before open(), which may wait for a pipe or rewind a tape
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if links else os.O_NOFOLLOW
    with open(os.open(path, flags, dir_fd=folder), "rb", buffering=0) as file:  # noqa: PTH123
        _check_file(os.fstat(file.fileno()), max_bytes)  # it may be another file by now
        return file.readall()


def _check_file(status: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("this is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("this is not a regular file but a pipe, a socket or a device")
    check_size_bytes(status.st_size, max_bytes)


def check_size_bytes(size: int, max_bytes: int) -> None:
    """Raise ImageError for a file that has nothing in it, or too much to read."""
    if size == 0:
        raise ImageError("the file is empty")
    if size > max_bytes:
        raise ImageError(
            f"the file has {size:,} bytes, over the limit of {max_bytes:,}; "
            "raise it with --max-bytes"
        )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    pixels = width * height
    if pixels > max_pixels:
        raise ImageError(
            f"{width}x{height} is {pixels / 1e6:g} Mpixel, over the limit of "
            f"{max_pixels / 1e6:g} Mpixel; raise it with --max-pixels"
        )


@cache
def _opencv_is_exact(image_format: PlainFormat) -> bool:
    """Whether the two libraries, as installed here, agree on a probe of this format.

    A distribution may link them with another libjpeg, whose upsampling or DCT differs.
    """
    if int(cv2.__version__.split(".")[0]) < 5:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (35, 51, 3), dtype=np.uint8)
    for options in _PROBES[image_format]:
        file = BytesIO()
        try:
            Image.fromarray(noise).save(file, image_format, **options)
            exact = np.asarray(Image.open(file).convert("RGB"))
            rgb = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), _OPENCV_FLAGS)
        except (KeyError, OSError, cv2.error):  # a build without this format
            return False
        if rgb is None or not np.array_equal(rgb, exact):
            return False
    return True


def _decode_with_opencv(data: bytes, header: PlainHeader) -> NDArray[np.uint8] | None:
    """Uint8 [H, W, 3], or None where OpenCV fails or Pillow reads another header."""
    if header.metadata and not _pillow_opens(data, header):
        return None
    if header.picture is not None:
        data = simple_webp(data[header.picture])
    try:
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), _OPENCV_FLAGS)
    except cv2.error:
        return None
    # An OpenCV without memory for the picture, or that fails halfway, returns None.
    if rgb is None or rgb.shape != (header.height, header.width, 3) or rgb.dtype != np.uint8:
        return None
    return rgb.view(np.ndarray)


def _pillow_opens(data: bytes, header: PlainHeader) -> bool:
    """Whether Pillow accepts the metadata, and reads the same header. No pixel is decoded."""
    try:
        image = Image.open(BytesIO(data), formats=(header.format,))
    except Exception:  # as in _open_with_pillow, which is asked next and gives the reason
        return False
    return (image.format, *image.size) == (header.format, header.width, header.height)


def _decode_with_pillow(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    image = _open_with_pillow(data)
    _check_size(*image.size, max_pixels)
    try:
        image.load()
        _check_size(*image.size, max_pixels)  # an icon may hold more than it announced
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # as in _open_with_pillow
        raise ImageError(_refusal(error, image.format)) from error


def _open_with_pillow(data: bytes) -> ImageFile.ImageFile:
    """Read the header only. Raises ImageError where Pillow refuses the file."""
    _load_plugins()
    try:
        image = Image.open(BytesIO(data))
    except Exception as error:
        # Pillow promises no list of exceptions, and its forty parsers, fed with hostile bytes, have
        # raised nearly every built-in one. All of them say the same: this image cannot be read.
        raise ImageError(_refusal(error, None)) from error
    if image.format == "EPS":
        raise ImageError("EPS needs an external program (Ghostscript), which is not run")
    if isinstance(image, ImageFile.StubImageFile):
        raise ImageError(f"{image.format} needs a plugin that Pillow does not have")
    return image


def _load_plugins() -> None:
    """All plugins now: two threads that find one missing at once make Pillow refuse a good file."""
    Image.preinit()
    Image.init()


def _refusal(error: Exception, image_format: str | None) -> str:
    """The reason why Pillow refuses an image, on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"over Pillow's limit of pixels ({text}); raise it with --max-pixels"
    state = "truncated" if "truncated" in text.lower() else "damaged"
    return f"{state} {image_format or 'image'}: {text}"
