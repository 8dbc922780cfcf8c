"""What scoring with TensorRT needs on this machine, piece by piece."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from trtdet.engine.cuda import Gpu, load_driver
from trtdet.engine.cuda_graph import capture_reason
from trtdet.engine.tensorrt_library import load_library
from trtdet.errors import BackendError


@dataclass(frozen=True)
class Piece:
    """One piece: what there is of it, or why it is missing."""

    name: str
    found: str = ""
    reason: str = ""
    optional: bool = False


def find_pieces() -> list[Piece]:
    """The driver, pycuda, the GPU and TensorRT, and what makes it faster."""
    return [*_needed(), Piece("CUDA graphs", *_graphs(), optional=True)]


def missing_pieces() -> Iterator[str]:
    """Why TensorRT cannot score here, each piece that is missing; none where it can.

    A piece is looked for when it is asked for: to import TensorRT takes a third of a second.
    """
    return (f"{piece.name}: {piece.reason}" for piece in _needed() if piece.reason)


def _needed() -> Iterator[Piece]:
    yield _piece("NVIDIA driver", _driver)
    yield _piece("pycuda", _pycuda)
    yield _piece("GPU", _gpu)
    yield _piece("TensorRT", _library)


def _piece(name: str, look: Callable[[], str]) -> Piece:
    try:
        return Piece(name, look())
    except BackendError as error:
        return Piece(name, reason=str(error))


def _driver() -> str:
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise BackendError(f"it does not load ({error})") from error
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    return f"for CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def _pycuda() -> str:
    """pycuda's release and the CUDA that it was built for: newer than the driver's, it may fail."""
    driver = load_driver()
    try:
        release = version("pycuda")
    except PackageNotFoundError:
        release = "of an unknown release"
    if not hasattr(driver, "get_version"):
        return release
    built = ".".join(map(str, driver.get_version()[:2]))
    return f"{release}, built for CUDA {built}; the driver is {_driver()}"


def _gpu() -> str:
    gpu = Gpu()
    try:
        return f"{gpu.name}, {gpu.target}, {gpu.memory_bytes / 2**30:.1f} GiB"
    finally:
        gpu.close()


def _library() -> str:
    return str(load_library("tensorrt", "tensorrt-rtx", lean=True))


def _graphs() -> tuple[str, str]:
    reason = capture_reason()
    return ("", f"{reason} (pip install cuda-bindings)") if reason else ("cuda-bindings", "")
