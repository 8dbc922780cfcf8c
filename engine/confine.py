"""A folder that names cannot lead out of: for tables that come from others.

    absolute names, and names with `..`     refused as they are written, wherever they would end
    symbolic links                          followed, where what they lead to is in the folder

A name is resolved first, and then opened one folder after the other from the root on, without
following any link. What is swapped for a link in between is therefore not opened. Hard links and
mounts are the business of whoever owns the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trtdet.errors import ImageError, InputError

_FOLDER = (
    os.O_RDONLY
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_PATH", 0)  # the right to pass through a folder is enough
)


@dataclass(frozen=True)
class Confined:
    """A name beneath a root. No path: whoever opens it as one would leave the root unnoticed."""

    root: Path  # as `open_root` gives it
    name: str


def open_root(folder: str) -> Path:
    """The real path of a folder to confine names to. Raises InputError where it cannot be one."""
    if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
        raise InputError("--root needs a system that opens files relative to an open folder")
    root = Path(os.path.realpath(folder))
    try:
        os.close(os.open(root, _FOLDER))
    except OSError as error:
        raise InputError(f"--root {folder} cannot be used: {error.strerror}") from error
    return root


def path_beneath(root: Path, folder: Path) -> Path:
    """A folder as names beneath the root begin. Raises InputError where it lies outside."""
    resolved = Path(os.path.realpath(folder))
    if not resolved.is_relative_to(root):
        raise InputError(f"{folder} is not in {root}: with --root, what is listed lies in it")
    return resolved.relative_to(root)


@contextmanager
def open_parent(confined: Confined) -> Iterator[tuple[int, str]]:
    """The open folder that holds what the name leads to, and what that is called there.

    Open it with `dir_fd`, and without following links. Raises ImageError where the name leads out,
    OSError where there is no such folder.
    """
    *folders, last = _resolved(confined.root, Path(confined.name)).parts or (".",)
    with _entered(confined.root, folders) as descriptor:
        yield descriptor, last


@contextmanager
def open_folder(root: Path, name: Path) -> Iterator[int]:
    """An open folder beneath the root, to list. No link on the way is followed."""
    with _entered(root, name.parts) as entered:
        descriptor = os.open(".", os.O_RDONLY, dir_fd=entered)  # O_PATH does not list
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _resolved(root: Path, name: Path) -> Path:
    """Where the name leads, without links, relative to the root."""
    if name.is_absolute():
        raise ImageError("the name is absolute, which --root does not allow")
    if ".." in name.parts:
        raise ImageError("the name goes up with '..', which --root does not allow")
    resolved = Path(os.path.realpath(root / name))
    if not resolved.is_relative_to(root):
        raise ImageError("a symbolic link leads out of the --root folder")
    return resolved.relative_to(root)


@contextmanager
def _entered(root: Path, folders: Iterable[str]) -> Iterator[int]:
    """One folder after the other, none of them through a link."""
    descriptor = os.open(root, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
