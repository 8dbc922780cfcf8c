"""The process in which `--isolate` decodes: bytes of a file in, pixels or a refusal out.

    parent ──▶ worker    REQUEST, the bytes of the file        over a socket
    worker ──▶ parent    REPLY, the words of a refusal         over the socket
                         uint8 [height, width, 3]              in shared memory

It gives up its rights before it sees the first byte of an image, see `sandbox`.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from typing import BinaryIO

import numpy as np

from trtdet.engine.decode import decode_rgb, load_decoders, quiet_decoders
from trtdet.engine.sandbox import die_with, enter_sandbox
from trtdet.errors import ImageError

REQUEST = struct.Struct("<Q")  # bytes of the file
REPLY = struct.Struct("<4I")  # one of the kinds below, width, height, bytes of words
READY, DECODED, REFUSED = range(3)  # READY says with its words what the sandbox lacks

# What decoding takes at most, beside the file and its pixels: the interpreter and the libraries.
_BASE_BYTES = 1 << 30
# Of address space per pixel. JPEG 2000 with alpha was measured to take most, 25: four samples of
# 32 bits, and Pillow's picture twice.
_BYTES_PER_PIXEL = 32
_FILE_COPIES = 3


def run_worker(channel: int, pixels: int, parent: int, max_pixels: int, max_bytes: int) -> None:
    """Serve requests from the socket `channel` until it is closed; results go to the file `pixels`.

    `parent` is the process that started this one. Both are file descriptors.
    """
    die_with(parent)
    # A scheduler that ends a job tells all its processes; the parent finishes what was begun.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    quiet_decoders(max_pixels)
    load_decoders()
    memory = _BASE_BYTES + _BYTES_PER_PIXEL * max_pixels + _FILE_COPIES * max_bytes
    with open(channel, "rb", closefd=False) as requests, mmap.mmap(pixels, 0) as shared:
        os.close(pixels)
        _reply(channel, READY, words=enter_sandbox(memory) or "")
        while len(head := requests.read(REQUEST.size)) == REQUEST.size:
            (size,) = REQUEST.unpack(head)
            try:
                rgb = decode_rgb(_read(requests, size), max_pixels=max_pixels)
                height, width, _ = rgb.shape
                np.frombuffer(shared, np.uint8, rgb.size).reshape(rgb.shape)[...] = rgb
            except ImageError as reason:
                _reply(channel, REFUSED, words=str(reason))
            except MemoryError:
                _reply(channel, REFUSED, words="not enough memory to decode it")
            else:
                _reply(channel, DECODED, width, height)


def _read(requests: BinaryIO, size: int) -> bytes:
    """The file. Raises MemoryError where there is no room for it, once it was read past."""
    try:
        return requests.read(size)
    except MemoryError:  # nothing was read yet
        while size > 0 and (part := requests.read(min(size, 1 << 20))):
            size -= len(part)
        raise


def _reply(channel: int, kind: int, width: int = 0, height: int = 0, *, words: str = "") -> None:
    text = words.encode(errors="replace")
    os.write(channel, REPLY.pack(kind, width, height, len(text)) + text)


def main() -> None:
    """The entry point of the new process: see `isolate`, which starts it."""
    run_worker(*map(int, sys.argv[1:6]))
