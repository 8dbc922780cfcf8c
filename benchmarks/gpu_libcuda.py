"""The driver itself through ctypes, as much of it as one network needs.

Whether a plan runs on a GPU shall be known where neither pycuda nor torch is: the driver is there
wherever a GPU is.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.errors import BackendError

_CC_MAJOR, _CC_MINOR = 75, 76  # CUdevice_attribute of cuda.h


class Cuda:
    """The first GPU, its primary context current in this thread, and one stream.

    Raises BackendError with the loader's or the driver's reason.
    """

    def __init__(self) -> None:
        try:
            self._cuda: Any = load_libcuda()
        except OSError as error:
            raise BackendError(f"no NVIDIA driver ({error})") from error
        device, context, stream = c_int(), c_void_p(), c_void_p()
        major, minor = c_int(), c_int()
        name = ctypes.create_string_buffer(256)
        self._call("cuInit", 0)
        self._call("cuDeviceGet", byref(device), 0)
        self._call("cuDeviceGetName", name, len(name), device)
        self._call("cuDeviceGetAttribute", byref(major), _CC_MAJOR, device)
        self._call("cuDeviceGetAttribute", byref(minor), _CC_MINOR, device)
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._call("cuCtxPushCurrent_v2", context)
        self._call("cuStreamCreate", byref(stream), 1)  # beside the default stream
        self._device, self._stream = device, stream
        self.name = name.value.decode(errors="replace")
        self.target = f"sm_{major.value}{minor.value}"

    @property
    def stream(self) -> int:
        """The address of the stream."""
        return int(self._stream.value or 0)

    def wait(self) -> None:
        """Wait for the stream."""
        self._call("cuStreamSynchronize", self._stream)

    @contextmanager
    def memory(self, size_bytes: int) -> Iterator[int]:
        """Device memory, as its address."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(1, size_bytes)))
        try:
            yield int(address.value)
        finally:
            self._cuda.cuMemFree_v2(address)  # after a fault it fails, and the fault is the reason

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Copy to the device, and wait for it."""
        size = c_size_t(source.nbytes)
        self._call("cuMemcpyHtoD_v2", c_uint64(address), c_void_p(source.ctypes.data), size)

    def download(self, address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Copy float32 from the device, and wait for it."""
        target = np.empty(shape, np.float32)
        size = c_size_t(target.nbytes)
        self._call("cuMemcpyDtoH_v2", c_void_p(target.ctypes.data), c_uint64(address), size)
        return target

    def close(self) -> None:
        """Let go of the stream and the context."""
        self._cuda.cuStreamDestroy_v2(self._stream)
        self._cuda.cuCtxPopCurrent_v2(byref(c_void_p()))
        self._cuda.cuDevicePrimaryCtxRelease_v2(self._device)

    def _call(self, function: str, *arguments: Any) -> None:
        if code := getattr(self._cuda, function)(*arguments):
            name = c_char_p()
            self._cuda.cuGetErrorName(code, byref(name))
            reason = (name.value or b"CUDA error").decode()
            raise BackendError(f"{function}: {reason} ({code})")


def load_libcuda() -> Any:
    """The driver's library. Raises OSError."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
