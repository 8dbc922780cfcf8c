"""A real HTTP server in a thread, that behaves as it is told, one request after the other."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", bytes], None]  # given the content of the path that is asked for


class FileServer:
    """Serves `files` by path; the first of `plan` answers the next request, `serve` the rest."""

    def __init__(self, certificate: str | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: list[Answer] = []
        self.ranges: list[str | None] = []  # of every request that came
        self.go_on = threading.Event()  # ends the pause of `stall`
        self._certificate = certificate
        self._port = 0  # any, and then the same again
        self.start()
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.owner = self  # type: ignore[attr-defined]
        self._port = self._http.server_port
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> FileServer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        owner: FileServer = self.server.owner  # type: ignore[attr-defined]
        owner.ranges.append(self.headers["Range"])
        answer = owner.plan.pop(0) if owner.plan else serve
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that stopped
            answer(self, owner.files.get(self.path, b""))

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def begin_body(self, content: bytes) -> bytes:
        """Headers for what is asked for of `content`; the bytes that are to follow."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            self.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            return b""
        rest = content[start:]
        if asked:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.begin(206, Content_Length=len(rest), Content_Range=span)
        else:
            self.begin(200, Content_Length=len(rest))
        return rest

    def log_message(self, *_arguments: object) -> None:
        pass


def serve(handler: Handler, content: bytes) -> None:
    """As a server should, ranges included."""
    handler.wfile.write(handler.begin_body(content))


def whole(handler: Handler, content: bytes) -> None:
    """The whole file, whatever range is asked for."""
    handler.begin(200, Content_Length=len(content))
    handler.wfile.write(content)


def trickle(handler: Handler, content: bytes) -> None:
    """A tenth at a time."""
    rest = handler.begin_body(content)
    step = len(rest) // 10
    for start in range(0, len(rest), step):
        handler.wfile.write(rest[start : start + step])
        time.sleep(0.01)


def cut(count: int, *, ranges: bool = True) -> Answer:
    """`count` bytes of those announced, then the end of the connection."""

    def answer(handler: Handler, content: bytes) -> None:
        if ranges:
            rest = handler.begin_body(content)
        else:
            handler.begin(200, Content_Length=len(content))
            rest = content
        handler.wfile.write(rest[:count])

    return answer


def cut_chunk(handler: Handler, content: bytes) -> None:
    """One chunk of a file whose length is not announced, and no last one."""
    handler.protocol_version = "HTTP/1.1"
    handler.begin(200, Transfer_Encoding="chunked", Connection="close")
    handler.wfile.write(b"%x\r\n%s\r\n" % (1000, content[:1000]))
    handler.close_connection = True


def cut_unannounced(count: int | None) -> Answer:
    """`count` bytes, None for all, of a file whose end is the end of the connection."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.begin(200)
        handler.wfile.write(content[:count])

    return answer


def reset(count: int) -> Answer:
    """`count` bytes of those announced, then a connection reset."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.begin_body(content)[:count])
        handler.wfile.flush()
        time.sleep(0.05)  # a reset drops what the client has not read
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()

    return answer


def stall(count: int) -> Answer:
    """`count` bytes, the rest only once the server's `go_on` is set."""

    def answer(handler: Handler, content: bytes) -> None:
        rest = handler.begin_body(content)
        handler.wfile.write(rest[:count])
        owner: FileServer = handler.server.owner  # type: ignore[attr-defined]
        owner.go_on.wait(30)
        handler.wfile.write(rest[count:])

    return answer


def mute(handler: Handler, _content: bytes) -> None:
    """Not a byte, until the server's `go_on` is set."""
    owner: FileServer = handler.server.owner  # type: ignore[attr-defined]
    owner.go_on.wait(30)


def hang_up(_handler: Handler, _content: bytes) -> None:
    """The end of the connection in place of an answer."""


def span(start: int, count: int, total: object = None) -> Answer:
    """`count` bytes from `start`, whatever range is asked for."""

    def answer(handler: Handler, content: bytes) -> None:
        which = f"bytes {start}-{start + count - 1}/{total or len(content)}"
        handler.begin(206, Content_Length=count, Content_Range=which)
        handler.wfile.write(content[start : start + count])

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda handler, _content: handler.begin(code, Content_Length=0, **headers)


def page(handler: Handler, _content: bytes) -> None:
    """What a network's sign-in page answers to everything."""
    text = b"\n<!DOCTYPE html><title>Sign in</title>"
    handler.begin(200, Content_Type="text/html", Content_Length=len(text))
    handler.wfile.write(text)
