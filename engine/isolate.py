"""Decoding in a process of its own, which may crash, hang, or be taken over by an image.

The parent reads the file and checks what comes back; the process has no rights, see `sandbox`. One
that dies costs the image that it had, with the reason, and the next image starts another. Pixels
are those of `decode_rgb`, which is what runs there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.decode import Limits
from trtdet.engine.decode_worker import DECODED, READY, REFUSED, REPLY, REQUEST
from trtdet.errors import BackendError, ImageError

# Until a new process answers: its imports come from a disk that may be slow.
START_S = 60.0
START_ATTEMPTS = 3

# A process that closed its socket is about to end.
_END_S = 5.0

# A refusal is one sentence; more is no refusal.
_MOST_WORDS = 1 << 12

# Shared memory that is kept between images. A larger picture's is given back.
_KEPT_BYTES = 64 << 20

# What the interpreter and the loader need. Keys and tokens stay out of the process.
_VARIABLES = ("PYTHON", "LD_", "PATH", "HOME", "LANG", "LC_")

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[6:]; from trtdet.engine.decode_worker import main; main()"
)


class IsolatedDecoder:
    """See `trtdet.engine.decode_pool.Decoder`. `on_notice` hears what the sandbox lacks here."""

    def __init__(self, limits: Limits, on_notice: Callable[[str], None]):
        self._limits, self._on_notice = limits, on_notice
        self._process: _Process | None = None
        self._lock = Lock()  # between starting a process and abandoning it
        self._abandoned = False

    def ready(self) -> None:
        """Start a process where none runs. Raises BackendError where that fails repeatedly."""
        attempts = 0
        while self._process is None and not self._abandoned:
            attempts += 1
            try:
                self._start()
            except (OSError, EOFError, ValueError, OverflowError) as error:
                if attempts == START_ATTEMPTS and not self._abandoned:
                    raise BackendError(
                        f"the process that decodes images does not start: {error}. Leave "
                        "--isolate out, or find the cause with: "
                        f"{sys.executable} -c 'import trtdet.engine.decode_worker'"
                    ) from error

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """See `trtdet.engine.decode.decode_rgb`."""
        process = self._process
        if process is None:
            raise ImageError("its decoder did not start")
        try:
            return process.decode(data, self._limits.max_pixels)
        except _NonsenseError as error:
            self._process = None
            process.end()
            raise ImageError(f"its decoder {error}") from None
        except (OSError, EOFError):
            self._process = None
            raise ImageError(f"its decoder {process.end()}") from None

    def abandon(self) -> None:
        """From another thread: kill what runs, for good."""
        with self._lock:
            self._abandoned = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _start(self) -> None:
        with self._lock:
            if self._abandoned:
                return
            process = self._process = _Process(self._limits)
        try:
            lacking = process.greet()
        except (OSError, EOFError) as error:
            self._process = None
            raise EOFError(f"it {process.end()}: {process.last_words or error}") from error
        if lacking:
            self._on_notice(
                f"decoders run in processes without a system call filter ({lacking}): a crash "
                "costs one row, but a decoder that is taken over has this user's rights"
            )


class _NonsenseError(EOFError):
    """A process answers what no decoder would."""

    def __init__(self) -> None:
        super().__init__("gave an answer that makes no sense")


class _Process:
    """One process, its socket, and the memory that it shares."""

    def __init__(self, limits: Limits):
        descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123
            file.truncate(3 * limits.max_pixels)  # sparse: takes no memory yet
            # Whatever the process does, what is mapped here stays there.
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._pixels = mmap.mmap(descriptor, 0)
            self._printed = open(os.memfd_create("printed"), "r+b")  # noqa: PTH123, SIM115 - `end`
            self._channel, theirs = socket.socketpair()
            with theirs:
                given = (theirs.fileno(), descriptor)
                numbers = (*given, os.getpid(), limits.max_pixels, limits.max_bytes)
                self._popen = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *map(str, numbers), *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._printed,
                    env=_environment(),
                    pass_fds=given,
                    start_new_session=True,  # Ctrl-C is for the parent, which finishes its images
                )

        self.last_words = ""  # once it has ended: the last line that it printed

    def greet(self) -> str:
        """Wait until it is ready; what the sandbox lacks, or nothing."""
        self._channel.settimeout(START_S)
        kind, _, _, words = self._receive_reply()
        if kind != READY:
            raise _NonsenseError
        self._channel.settimeout(None)
        return words

    def decode(self, data: bytes, max_pixels: int) -> NDArray[np.uint8]:
        """Raises OSError or EOFError where the process is at its end, or has to be."""
        self._channel.sendall(REQUEST.pack(len(data)))
        self._channel.sendall(data)
        kind, width, height, words = self._receive_reply()
        if kind == REFUSED and words:
            raise ImageError(words)
        if kind != DECODED or not 0 < width * height <= max_pixels:
            raise _NonsenseError
        # A copy: the process goes on to the next image, and may write what it likes at any time.
        shared = np.frombuffer(self._pixels, np.uint8, 3 * width * height)
        rgb: NDArray[np.uint8] = shared.reshape(height, width, 3).copy()
        if rgb.nbytes > _KEPT_BYTES:
            self._pixels.madvise(mmap.MADV_REMOVE)
        return rgb

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> str:
        """Let it end, or make it; how it ended, as the end of a sentence."""
        self._channel.close()
        try:
            code = self._popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        self._pixels.close()
        with self._printed:
            self._printed.seek(0)
            lines = self._printed.read().decode(errors="replace").split("\n")
        self.last_words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), most likely because memory ran out"
        if code < 0:
            return f"crashed ({signal.Signals(-code).name})"
        return f"ended (exit code {code})"

    def _receive_reply(self) -> tuple[int, int, int, str]:
        kind, width, height, length = REPLY.unpack(self._receive(REPLY.size))
        if length > _MOST_WORDS:
            raise _NonsenseError
        words = self._receive(length).decode(errors="replace")
        return kind, width, height, " ".join(words.split())

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = self._channel.recv(size - len(received))
            if not part:
                raise EOFError
            received += part
        return received


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    # Threads that NumPy would start at its import, for sums that decoding does not have.
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
