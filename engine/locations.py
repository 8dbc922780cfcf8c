"""Files on this machine and in object stores, under one kind of name: a path, or an URL.

An URL (`s3://bucket/key`, `gs://`, `hdfs://`, `memory://`, `https://`) is read through pyarrow's
file systems, or through fsspec's where pyarrow has none for its scheme; credentials and endpoints
come from their environment variables. `file://` is a path.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from trtdet.engine.decode import DEFAULT_MAX_BYTES, check_size_bytes, read_image_file
from trtdet.errors import BackendError, ImageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# What pyarrow reads by itself. Everything else is fsspec's.
_PYARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


def is_url(name: str) -> bool:
    """Whether it is an URL that is no `file://`."""
    return _URL.match(name) is not None and not name.startswith("file://")


def local_path(name: str) -> str:
    """A path as it is; of a `file://` URL, its path."""
    return unquote(urlsplit(name).path) if name.startswith("file://") else name


def join(folder: str, name: str) -> str:
    """`name` as it is where it is absolute or an URL, else relative to `folder`."""
    if is_url(name) or not is_url(folder):
        return name if is_url(name) else os.path.join(local_path(folder), local_path(name))  # noqa: PTH118
    return local_path(name) if _is_local(name) else f"{folder.rstrip('/')}/{name}"


def open_filesystem(name: str) -> tuple[FileSystem, str]:
    """The file system of a path or an URL, and what it calls the file.

    Raises BackendError where pyarrow, or the package that reads such URLs, is not installed.
    """
    try:
        from pyarrow import fs
    except ImportError as error:
        raise BackendError(f"{name} needs pyarrow: pip install 'trtdet[ray]'") from error
    if not is_url(name):
        return fs.LocalFileSystem(), os.path.abspath(local_path(name))  # noqa: PTH100
    scheme, _, path = name.partition("://")
    if scheme.lower() in _PYARROW:
        return _pyarrow_filesystem(scheme, path.partition("/")[0]), path
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(name)
    except (ImportError, ValueError) as error:  # fsspec knows no such scheme
        raise BackendError(f"nothing installed here reads {scheme}:// ({error})") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


_opened: dict[str, Any] = {}  # by their root: an object store's client takes its time to connect


def _pyarrow_filesystem(scheme: str, root: str) -> FileSystem:
    from pyarrow import fs

    url = f"{scheme}://{root}"
    if url not in _opened:
        _opened[url] = fs.FileSystem.from_uri(url)[0]
    return _opened[url]


def read_image(name: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Read a whole image file from a path or an URL.

    Raises ImageError, with the reason in plain words, where that file cannot be read.
    """
    if not is_url(name):
        return read_image_file(local_path(name), max_bytes=max_bytes)
    filesystem, path = open_filesystem(name)
    try:
        with filesystem.open_input_file(path) as file:
            check_size_bytes(file.size(), max_bytes)
            data: bytes = file.read()
            return data
    except FileNotFoundError as error:
        raise ImageError("file not found") from error
    except PermissionError as error:
        raise ImageError("no permission to read the file") from error
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise ImageError(f"the file cannot be read: {reason}") from error


def _is_local(name: str) -> bool:
    return name.startswith(("/", "file://"))
