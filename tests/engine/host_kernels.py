"""The CUDA kernels of `preprocess.cu`, compiled for the host and run over their whole grid."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from trtdet.engine.cubin import SOURCE
from trtdet.engine.geometry import Geometry
from trtdet.engine.staging import KERNELS, Launch

SHIM = Path(__file__).with_name("host_cuda.h")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
GUARD = 64  # bytes after each buffer that no kernel may touch


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels, kept for the next run. Skips the test where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) to run the CUDA kernels on the host with")
    # A sum that overflows, or a shift of too much, ends the process instead of giving some bytes.
    flags = ("-std=c++17", "-O2", "-shared", "-fPIC", "-fsanitize=undefined",
             "-fsanitize-undefined-trap-on-error")  # fmt: skip
    command = [compiler, *flags, *WARNINGS, "-include", str(SHIM), "-x", "c++", str(SOURCE)]
    parts = [" ".join(command).encode(), SOURCE.read_bytes(), SHIM.read_bytes()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"trtdet-host-kernels-{os.getuid()}" / f"{digest}.so"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        own = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(own)], check=True)
        own.replace(path)
    return ctypes.CDLL(str(path))


class HostDevice:
    """The device's side of a `Staging`: its memory, guarded, and the launches."""

    def __init__(self, geometry: Geometry, batch: int, temp_bytes: int):
        self._batch, self._temp_bytes = batch, temp_bytes
        self._shape = (batch * geometry.views, *geometry.fixed_size, 3)
        self._size = int(np.prod(self._shape))

    def run(self, buffer: np.ndarray, launch: Launch) -> np.ndarray:
        """Upload and launch: uint8 [batch * views, H, W, 3]. What was in memory is never seen."""
        kernels = library()
        staging = buffer[: launch.upload_bytes].copy()  # nothing beyond it may be read
        temp, output = _filled(self._temp_bytes), _filled(self._size)
        for name, blocks in zip(KERNELS, launch.blocks, strict=True):
            kernels.launch(
                getattr(kernels, name),
                blocks, self._batch, launch.threads,
                *(ctypes.c_void_p(memory.ctypes.data) for memory in (staging, temp, output)),
            )  # fmt: skip
        for memory in (temp, output):
            assert np.all(memory[-GUARD:] == 0xA5)
        assert np.array_equal(staging, buffer[: launch.upload_bytes])
        return output[:-GUARD].reshape(self._shape)


def _filled(size: int) -> np.ndarray:
    return np.full(size + GUARD, 0xA5, np.uint8)
