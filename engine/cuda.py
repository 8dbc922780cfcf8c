"""CUDA through pycuda, as much of it as a session needs: each resource has one owner and an end.

pycuda frees what is forgotten whenever Python collects it, in whatever thread and context that is.
Here nothing is forgotten: memory, streams, events and modules are opened by `with`, in a thread
that has made the device current, and end in that thread.

Importing this module needs no GPU; a `Gpu` does.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.errors import BackendError

Bytes = NDArray[np.uint8]  # [n]

ADVICE = "`trtdet doctor` shows what is missing"


class Gpu:
    """One GPU, and its primary context, which TensorRT shares.

    Raises BackendError with the driver's own reason where there is none of that number. Whoever
    opens it closes it, after all that uses it.
    """

    def __init__(self, index: int = 0):
        self.driver = load_driver()
        try:
            self.driver.init()
            count = self.driver.Device.count()
            if index >= count:
                raise BackendError(f"there is no GPU {index}: this machine has {count}")
            device = self.driver.Device(index)
            major, minor = device.compute_capability()
            self.index = index
            self.name: str = device.name()
            self.target = f"sm_{major}{minor}"
            self.memory_bytes: int = device.total_memory()
            self._context = device.retain_primary_context()
            self._lost = False
            self._kept: list[Any] = []  # of a lost device: what must not be freed before `close`
        except self.driver.Error as error:
            raise BackendError(f"CUDA does not start: {error}. {ADVICE}") from error

    def close(self) -> None:
        """Let go of the context."""
        self._context.detach()
        _pop_current()  # pycuda takes it for popped, which the driver does not
        self._kept.clear()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it this thread's device for as long as the block runs."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def free_bytes(self) -> int:
        """Memory that nobody uses."""
        free, _total = self.driver.mem_get_info()
        return int(free)

    @contextmanager
    def memory(self, size_bytes: int) -> Iterator[int]:
        """Device memory, as its address."""
        allocation = self.driver.mem_alloc(max(1, size_bytes))
        try:
            yield int(allocation)
        finally:
            self._free(allocation)

    @contextmanager
    def pinned(self, size_bytes: int) -> Iterator[Bytes]:
        """Page-locked host memory, zeroed: what copies beside other work needs."""
        array: Bytes = self.driver.pagelocked_zeros(max(1, size_bytes), np.uint8)
        try:
            yield array
        finally:
            self._free(array.base)

    @contextmanager
    def stream(self) -> Iterator[Any]:
        """A stream; `handle` is its address. It is idle when the block ends."""
        stream = self.driver.Stream()
        try:
            yield stream
        finally:
            if self._lost:
                self._kept.append(stream)
            else:
                self.drain(stream)

    def drain(self, stream: Any) -> None:
        """Wait until a stream is idle; where that fails the device is lost, and is said once."""
        try:
            stream.synchronize()
        except self.driver.Error:
            self._lost = True

    def _free(self, allocation: Any) -> None:
        """Of a lost device nothing can be freed: pycuda would say so for each piece."""
        if self._lost:
            self._kept.append(allocation)
        else:
            allocation.free()

    def event(self) -> Any:
        """A mark in a stream that a thread waits for asleep."""
        flags = self.driver.event_flags
        return self.driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    def upload(self, address: int, source: Bytes, stream: Any) -> None:
        """Copy pinned bytes to the device, in the stream's order."""
        self.driver.memcpy_htod_async(address, source, stream)

    def download(self, target: Bytes, address: int, stream: Any) -> None:
        """Copy to pinned bytes, in the stream's order."""
        self.driver.memcpy_dtoh_async(target, address, stream)

    def clear(self, address: int, size_bytes: int) -> None:
        """Set device memory to 0."""
        self.driver.memset_d8(address, 0, size_bytes)

    def clear_in(self, address: int, size_bytes: int, stream: Any) -> None:
        """Set device memory to 0, in the stream's order."""
        self.driver.memset_d8_async(address, 0, size_bytes, stream)

    def kernels(self, cubin: bytes, names: Sequence[str], signature: str) -> list[Any]:
        """Functions of a cubin, whose arguments are typed as in `struct`."""
        module = self.driver.module_from_buffer(cubin)
        found = [module.get_function(name) for name in names]
        for function in found:
            function.prepare(signature)
        return found

    def reason(self, error: BaseException) -> BaseException:
        """What a failure of CUDA or TensorRT means, in one line; any other as it is."""
        if not isinstance(error, (self.driver.Error, MemoryError, RuntimeError)):
            return error
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, (MemoryError, self.driver.MemoryError)):
            return BackendError(
                f"{self.name} is out of memory ({text}): give fewer --slots, or a smaller batch, "
                "`trtdet compile BUNDLE --target current --batch N`"
            )
        return BackendError(f"{self.name} failed: {text}. {ADVICE}")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait in the block that fails tells that the device is lost."""
        try:
            yield
        except self.driver.Error:
            self._lost = True
            raise


def _pop_current() -> None:
    """Take the released context off this thread's stack in the driver."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    with suppress(OSError):
        ctypes.CDLL(library).cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def load_driver() -> ModuleType:
    """pycuda's driver. Raises BackendError with the loader's reason."""
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise BackendError(
            f"pycuda does not load ({error}): pip install 'trtdet[cuda]' where the NVIDIA driver is"
        ) from error
