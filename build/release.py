"""A released file of weights, and whether a file on this machine is that one, byte for byte.

Nothing is loaded that was not compared with a hash that stands in this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trtdet.engine.atomic import atomic_text
from trtdet.errors import CheckpointError

# Hashing runs at about 1 GB/s: what is larger is hashed once, and its hash noted beside it.
NOTED_FROM_BYTES = 64 << 20

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_HTML = re.compile(rb"\s*(<!doctype|<html|<head|<\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class Release:
    """One file that was released: where it is, and the hash that pins its bytes."""

    file: str  # its name on this machine
    url: str
    sha256: str | None = None
    git_blob: str | None = None  # sha1 of b"blob <size>\0" and the bytes, as git names a file
    size_bytes: int | None = None

    @property
    def pin(self) -> str | None:
        """The hash that decides, with its kind: `sha256 b8cc...`, `git blob 1673...`."""
        if self.sha256:
            return f"sha256 {self.sha256}"
        return f"git blob {self.git_blob}" if self.git_blob else None


def is_web_page(head: bytes) -> bool:
    """Whether a file that starts so is HTML: what a sign-in page or a wrong address gives."""
    return _HTML.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that starts so is what git shows of a file that Git LFS keeps elsewhere."""
    return head.startswith(_LFS_POINTER)


def difference(release: Release, path: Path) -> str | None:
    """What the file at `path` is instead of the release, in words; None where it is the release.

    Raises CheckpointError for a release without a pinned hash: it could be anything.
    """
    if release.pin is None:
        raise CheckpointError(
            f"{release.file} has no pinned hash, so it is neither fetched nor used: pin its "
            "sha256 or git blob in its record, or give a file of your own with --weights"
        )
    status = path.stat()
    fresh = {"pin": release.pin, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if status.st_size > NOTED_FROM_BYTES and _read_note(path) == fresh:
        return None
    found = _found(release, path)
    if found == release.pin:
        return None
    with path.open("rb") as file:
        head = file.read(512)
    if is_web_page(head):
        return "a web page"
    if is_lfs_pointer(head):
        return "a Git LFS pointer"
    return f"{status.st_size:,} bytes with {found}"


def note_verified(release: Release, path: Path) -> None:
    """Note beside a large file that was just found to be the release, so that it is not read again.

    The note holds while size and modification time stay. A folder that cannot be written to goes
    without.
    """
    status = path.stat()
    if status.st_size <= NOTED_FROM_BYTES:
        return
    fresh = {"pin": release.pin, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    with contextlib.suppress(OSError), atomic_text(_note(path)) as file:
        json.dump(fresh, file)


def accept(release: Release, path: Path) -> None:
    """Take the file at `path`, whoever put it there, for the release.

    Raises CheckpointError where it is another file, which is then moved aside.
    """
    if came := difference(release, path):
        refuse(release, path, came, source=str(path))
    note_verified(release, path)


def refuse(release: Release, path: Path, came: str, *, source: str) -> NoReturn:
    """Move the file at `path` aside, as `<file>.refused`, and raise CheckpointError.

    `came` says what the file is, `source` where it came from.
    """
    aside = path.with_name(f"{release.file}.refused")
    try:
        path.replace(aside)
        kept = f"It is kept as {aside}: run the same command again to fetch it anew"
    except OSError as error:
        kept = f"Delete it ({error.strerror}), then run the same command again"
    raise CheckpointError(
        f"{source} is not the released {release.file}: expected {release.pin}, "
        f"this is {came}. {kept}, or put the file of {release.url} into {path.parent}"
    )


def _found(release: Release, path: Path) -> str:
    """The file's own hash, of the kind that pins the release."""
    digest = hashlib.sha256() if release.sha256 else hashlib.sha1(_blob_header(path))
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{'sha256' if release.sha256 else 'git blob'} {digest.hexdigest()}"


def _blob_header(path: Path) -> bytes:
    return f"blob {path.stat().st_size}\0".encode()


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _read_note(path: Path) -> object:
    try:
        return json.loads(_note(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
