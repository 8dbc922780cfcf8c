"""Files and folders that appear whole or not at all: temporary name, fsync, `os.replace`."""

from __future__ import annotations

import glob
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """A text file that replaces `path` when the block ends well, and vanishes when it does not.

    UTF-8; bytes of a file name that are not UTF-8 pass through as they came.
    """
    with atomic_bytes(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.flush()
        text.detach()


@contextmanager
def atomic_bytes(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` when the block ends well, and vanishes when it does not.

    A rename is atomic only within a file system, so the temporary file lies beside its target; a
    symbolic link is followed, or the rename would put a file in its place.
    """
    path = Path(os.path.realpath(path))
    descriptor, name = _temporary_file(path)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends well, and vanishes otherwise.

    A folder cannot be replaced in one step, so an older one is moved aside first, and put back if
    the new one cannot take its place.
    """
    path = Path(os.path.realpath(path))  # a symbolic link stays one, as in `atomic_bytes`
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    aside = temporary.with_suffix(".old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(aside)
        try:
            temporary.rename(path)
        except BaseException:
            if aside.exists():
                aside.rename(path)
            raise
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def temporary_files(folder: Path, name: str | None = None) -> list[Path]:
    """What writers of files in `folder`, or of the one called `name`, have not finished."""
    return list(folder.glob(f".{'*' if name is None else glob.escape(name) + '.*'}.tmp"))


def check_writable(path: Path) -> None:
    """Raise OSError where `atomic_bytes(path)` would, by making its temporary file and no more."""
    try:
        descriptor, name = _temporary_file(Path(os.path.realpath(path)))
    except OSError as error:  # it names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(descriptor)
    Path(name).unlink()


def _temporary_file(path: Path) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse to sync a folder
        pass
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
