"""One attempt to bring a file over HTTP: it begins where the last one stopped."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import trtdet
from trtdet.build.release import is_web_page

# Bytes that are there, and bytes in all where that is known.
OnProgress = Callable[[int, "int | None"], None]

TIMEOUT_S = 20.0  # to connect, and between one piece of the body and the next
_BLOCK_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)$")
_MAX_WAIT_S = 60  # that a server's Retry-After may ask for

_LOST = (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class TransferError(Exception):
    """The file did not come, and another attempt would end the same."""


class UnreachableError(TransferError):
    """Nobody answers at that address: no network, no such host, no route, no trust."""


class LostConnectionError(TransferError):
    """The connection or the server failed in a way that passes."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # how long the server asks to be left alone


def transfer(url: str, part: Path, on_progress: OnProgress, size_bytes: int | None) -> bool:
    """Append to `part` what it lacks of the file at `url`, and sync it.

    `size_bytes` is the file's size where it is known. Returns whether what `part` held before was
    kept: then only a hash can tell whether both pieces are of one file. What has come stays in
    `part` whatever stops the transfer.

    Raises TransferError, and OSError where `part` cannot be written.
    """
    offset = part.stat().st_size if part.exists() else 0
    response = _open(url, offset)
    if response is None:
        return True
    with response:
        body = _body(response)
        if body is None or body.start not in (0, offset):
            part.unlink(missing_ok=True)
            raise LostConnectionError("the server sent another range than the one asked for")
        if size_bytes and body.total not in (None, size_bytes):
            raise TransferError(f"{body.total} bytes are offered, the release has {size_bytes}")
        block = _read(response)
        # Before `part` is opened: a sign-in page must not cost what it holds.
        if body.start == 0 and is_web_page(block):
            raise TransferError("a web page came instead (the network's sign-in page?)")
        with part.open("ab" if body.start else "wb") as file:
            done = _copy(response, body, block, file, on_progress, size_bytes)
    total = size_bytes if body.total is None else body.total
    if total is not None and done < total:
        raise LostConnectionError(f"the body ended after {done:,} of {total:,} bytes")
    return body.start > 0


@dataclass(frozen=True)
class _Body:
    """Which bytes of the file a response brings; None is unknown."""

    start: int
    total: int | None  # the file's size: a server may send less than it is asked for


def _body(response: http.client.HTTPResponse) -> _Body | None:
    """What the headers announce; None for a range that they do not place in the file."""
    if response.status == 206:
        span = _CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
        return _Body(int(span[1]), int(span[2])) if span else None
    length = response.headers.get("Content-Length") or ""  # the whole: ranges may be ignored
    return _Body(0, int(length) if length.isdigit() else None)


def _open(url: str, offset: int) -> http.client.HTTPResponse | None:
    """The response; None where the server says that nothing is left to send."""
    request = urllib.request.Request(url, headers={"User-Agent": f"trtdet/{trtdet.__version__}"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    opener = urllib.request.build_opener(_StaySecure)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:
            return None
        reason = f"the server answered {error.code} {error.reason}"
        if error.code >= 500 or error.code in (408, 429):
            raise LostConnectionError(reason, _retry_after_s(error.headers)) from error
        raise TransferError(reason) from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, (*_LOST, http.client.HTTPException)):
            raise LostConnectionError(_words(cause)) from error
        raise UnreachableError(_words(cause)) from error
    return response


def _copy(
    response: http.client.HTTPResponse,
    body: _Body,
    block: bytes,
    file: IO[bytes],
    on_progress: OnProgress,
    size_bytes: int | None,
) -> int:
    """Write `block` and what follows it; the bytes that are then there."""
    done = body.start
    try:
        while block:
            file.write(block)
            file.flush()  # a killed process keeps it, too
            done += len(block)
            on_progress(done, body.total or size_bytes)
            if size_bytes and done > size_bytes:
                break  # another file, maybe an endless one
            block = _read(response)
    finally:
        os.fsync(file.fileno())
    return done


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next piece, as soon as there is one; nothing at the end of the body."""
    try:
        return response.read1(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise LostConnectionError(_words(error)) from error


def _retry_after_s(headers: Message) -> float:
    asked = headers.get("Retry-After", "")
    return float(min(int(asked), _MAX_WAIT_S)) if asked.isdigit() else 0.0


def _words(error: BaseException | str) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return text or type(error).__name__


class _StaySecure(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and scheme != urlsplit(req.full_url).scheme:
            raise TransferError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
