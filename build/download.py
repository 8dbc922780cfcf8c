"""A released file from the network into a folder: resumed, verified, and only then put in place.

`<file>.part` holds what has come, `<file>.refused` what turned out to be another file. Of two
processes that want the same file one fetches it and the other waits.

TRTDET_MIRROR=<base URL> fetches `<base URL>/<file>` in place of the release's own address. The
mirror need not be trusted, and may be plain http: the content is pinned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from trtdet.build.release import Release, accept, difference, note_verified, refuse
from trtdet.build.transfer import (
    LostConnectionError,
    OnProgress,
    TransferError,
    UnreachableError,
    transfer,
)
from trtdet.engine.lock import locked
from trtdet.errors import CheckpointError, DownloadError, InputError

OnLine = Callable[[str], None]

MIRROR_VARIABLE = "TRTDET_MIRROR"

# Between attempts of which none brought more bytes than there were; one that did starts over.
RETRY_DELAYS_S = (1.0, 4.0, 15.0)


def source_url(release: Release) -> str:
    """Where the release is fetched from: its own address, or the mirror's.

    Raises CheckpointError for a release without a pinned hash, DownloadError for an address that
    is not https, InputError for a mirror that is neither https nor http.
    """
    if release.pin is None:
        raise CheckpointError(
            f"{release.file} has no pinned hash, so it cannot be verified and is not fetched: "
            f"download {release.url} yourself, and pass it with --weights"
        )
    if mirror := os.environ.get(MIRROR_VARIABLE):
        if urlsplit(mirror).scheme not in ("https", "http"):
            raise InputError(
                f"{MIRROR_VARIABLE}={mirror} is no address: give one that starts with https:// "
                f"or http://, or unset it"
            )
        return f"{mirror.rstrip('/')}/{quote(release.file)}"
    if urlsplit(release.url).scheme != "https":
        raise DownloadError(
            f"{release.url} is not https, so {release.file} is not fetched: "
            f"set {MIRROR_VARIABLE} to the address of a folder that has it"
        )
    return release.url


def download(
    release: Release,
    folder: Path,
    *,
    on_progress: OnProgress,
    on_line: OnLine = lambda _line: None,
) -> Path:
    """Fetch `release` into `folder`, which is made where it is missing; the file's path.

    `on_progress` hears the bytes done and in all (None while unknown), `on_line` what a person
    would want to know. An interrupted download goes on where it stopped. Raises DownloadError
    where the file cannot be had, CheckpointError where another file came.
    """
    url = source_url(release)
    path = folder / release.file
    part = folder / f"{release.file}.part"
    folder.mkdir(parents=True, exist_ok=True)
    waiting = f"another process is fetching {release.file}: waiting for it"
    with locked(folder / f".{release.file}.lock", lambda: on_line(waiting)):
        if path.exists():  # the process that was waited for has fetched it
            accept(release, path)
            return path
        on_line(f"fetch      {url}")
        pieced = _receive(release, url, part, on_progress, on_line)
        came = difference(release, part)
        if came and pieced:
            on_line("what was kept of an earlier download does not fit: starting again")
            part.unlink()
            _receive(release, url, part, on_progress, on_line)
            came = difference(release, part)
        if came:
            refuse(release, part, came, source=f"what came from {url}")
        # `transfer` synced it. Should the rename be lost, the next run finds the whole .part.
        part.replace(path)
        note_verified(release, path)
    return path


def _receive(
    release: Release, url: str, part: Path, on_progress: OnProgress, on_line: OnLine
) -> bool:
    """Attempts until `part` is complete. Returns whether it was put together from pieces."""
    most = at_first = _size_bytes(part)
    failures = 0
    while True:
        try:
            return transfer(url, part, on_progress, release.size_bytes)
        except KeyboardInterrupt:
            on_line(f"{_size_bytes(part):,} bytes are kept: the same command goes on from there")
            raise
        except TransferError as error:
            size = _size_bytes(part)
            if size > most:
                most, failures = size, 0
            passing = isinstance(error, LostConnectionError)
            # A network that was there a moment ago may come back.
            passing |= isinstance(error, UnreachableError) and most > at_first
            if not passing or failures == len(RETRY_DELAYS_S):
                raise _failure(release, url, part, error) from error
            delay_s = max(RETRY_DELAYS_S[failures], getattr(error, "wait_s", 0.0))
            on_line(f"{release.file}: {error}; trying again in {delay_s:g} s")
            failures += 1
            time.sleep(delay_s)


def _failure(release: Release, url: str, part: Path, error: TransferError) -> DownloadError:
    kept = ""
    if size := _size_bytes(part):
        kept = f"{size:,} bytes are kept: run the same command again to go on. Or "
    named = "" if release.url.rsplit("/", 1)[-1] == release.file else f" as {release.file}"
    return DownloadError(
        f"cannot fetch {url} ({error}): {kept}download {release.url} and put it into "
        f"{part.parent}{named}, then run the same command again"
    )


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
