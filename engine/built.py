"""Compiled code that this machine's store made itself: plans, and the cubins of CUDA kernels.

Loading either runs what is in it, and a bundle can come from anywhere. So the store, which does not
travel with bundles, keeps a marker for the sha256 of each file that it has made:

    $TRTDET_HOME/built/<sha256>

Contract: `read_code` gives bytes whose very hash has a marker, read once, so that what was checked
is what is returned. One file per marker: any number of processes may write at once.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from trtdet.engine.atomic import atomic_bytes, atomic_text, check_writable, temporary_files
from trtdet.engine.store import starter_bundle, store_folder

OnLine = Callable[[str], None]

# A process that is killed leaves its temporary file. Nobody writes one for as long as this.
_STRAY_AGE_S = 3600.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


def record_built(digest: str) -> None:
    """Note that this store made what has the sha256 `digest`. Raises OSError where it cannot."""
    marker = _marker(digest)
    if not marker.is_file():
        marker.parent.mkdir(parents=True, exist_ok=True)
        with atomic_text(marker):  # its name says everything
            pass


def is_ours(digest: str) -> bool:
    """Whether this store made what has the sha256 `digest`."""
    return _SHA256.fullmatch(digest) is not None and _marker(digest).is_file()


def write_code(path: Path, data: bytes) -> None:
    """Put compiled code at `path`, whole or not at all, as this store's own.

    The folder is made where it is missing, and cleared of what killed processes left in it. Raises
    OSError where the store or the folder cannot be written, or the folder is a symbolic link.
    """
    record_built(sha256(data).hexdigest())
    own_place(path).parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    with atomic_bytes(path) as file:
        file.write(data)


def writable_place(own: Path, stored: Path) -> Path:
    """The folder for new code of a bundle: `own`, which lies in it, or else `stored`.

    The bundle that comes with the package stays as it was installed, and a symbolic link in a
    bundle is not followed.
    """
    try:
        starter = starter_bundle()
        if own.is_symlink() or (starter.is_dir() and own.parent.samefile(starter)):
            return stored
        check_writable((own if own.exists() else own.parent) / "code")
    except OSError:
        return stored
    return own


def own_place(path: Path) -> Path:
    """`path`, which is then no symbolic link, so that writing there replaces nothing elsewhere.

    A bundle can come from anywhere, with links to files of its user. A link in the place of a file
    is taken away. Raises OSError where the folder is one.
    """
    if path.parent.is_symlink():
        raise OSError(f"{path.parent} is a symbolic link: nothing is written through it")
    if path.is_symlink():
        path.unlink()
    return path


def read_code(
    path: Path,
    trust: bool = False,
    on_line: OnLine = lambda _line: None,
    expected: str | None = None,
) -> bytes | None:
    """The code at `path`, where this store made it, or `trust` says that it may be anybody's.

    None where there is no such file, where its sha256 is not the `expected` one, or where it is
    somebody else's: `on_line` is told of these two.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        on_line(f"{path} cannot be read: {error.strerror or error}")
        return None
    digest = sha256(data).hexdigest()
    if expected is not None and digest != expected:
        on_line(f"{path} is damaged: it has another hash than its record says")
        return None
    if trust or is_ours(digest):
        return data
    on_line(f"{path} was not compiled here: it is code, so it is not loaded")
    return None


def _marker(digest: str) -> Path:
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"{digest!r} is no sha256")
    return store_folder() / "built" / digest


def _sweep(folder: Path) -> None:
    """Remove old temporary files of `trtdet.engine.atomic`."""
    for stray in temporary_files(folder):
        with contextlib.suppress(OSError):
            if stray.is_file() and time.time() - stray.stat().st_mtime > _STRAY_AGE_S:
                stray.unlink()
