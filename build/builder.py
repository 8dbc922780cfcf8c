"""What can be compiled for here: the targets of TensorRT-RTX, and the GPU of this machine."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trtdet.engine.tensorrt_library import MODULES, Library, load_library
from trtdet.errors import BackendError, InputError

CURRENT = "current"

_CC_MAJOR, _CC_MINOR = 75, 76  # CUdevice_attribute of cuda.h


def offered_targets(library: Library) -> dict[str, Any]:
    """What it compiles for ahead of time: {"sm_86": ComputeCapability.SM86, ...}."""
    members = getattr(getattr(library.trt, "ComputeCapability", None), "__members__", {})
    names = {name: re.fullmatch(r"SM(\d+)", name) for name in members}
    return {f"sm_{found[1]}": members[name] for name, found in names.items() if found}


def parse_targets(text: str) -> tuple[str, ...]:
    """Targets from a comma-separated list; "sm_86", "sm86", "86" and "8.6" are the same one.

    Raises InputError for what the installed builder does not offer, BackendError when a compute
    capability is named and TensorRT-RTX is not installed.
    """
    targets = []
    for part in text.split(","):
        target = part.strip().lower()
        if found := re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", target):
            target = f"sm_{found[1]}{found[2]}"
        if target != CURRENT:
            find_capability(load_library("tensorrt-rtx"), target)
        targets.append(target)
    return tuple(dict.fromkeys(targets))


def builder_status() -> str:
    """One line: which TensorRT compiles here and for which targets, or why none does."""
    try:
        current = "'{}' is {} ({})".format(CURRENT, *current_gpu())
    except BackendError as error:
        current = f"not '{CURRENT}': {error}"
    found, reasons = [], []
    for flavour in MODULES:
        try:
            library = load_library(flavour)
        except BackendError as error:
            reasons.append(str(error))
        else:
            found.append(f"{library}: {', '.join((*offered_targets(library), current))}")
    return " ".join(("; ".join(found) or "no: " + "; ".join(reasons)).split())


def find_capability(library: Library, target: str) -> Any:
    """TensorRT-RTX's own value for a target. Raises InputError for one that it does not offer."""
    offers = offered_targets(library)
    if target not in offers:
        raise InputError(
            f"{library} cannot compile for '{target}' ahead of time; it offers "
            f"{', '.join(offers)}. For another GPU, compile on a machine that has it, with "
            f"target '{CURRENT}' and full TensorRT (pip install 'trtdet[tensorrt]'; JetPack has it)"
        )
    return offers[target]


def current_gpu(index: int = 0) -> tuple[str, str]:
    """A GPU of this machine, as ("sm_87", "Orin"). Raises BackendError with the driver's reason.

    The driver is asked directly: TensorRT gives no name, and the key needs the compute capability.
    """
    call = _driver()
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetAttribute", ctypes.byref(major), _CC_MAJOR, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), _CC_MINOR, device)
    call("cuDeviceGetName", name, len(name), device)
    return f"sm_{major.value}{minor.value}", name.value.decode(errors="replace")


@contextmanager
def on_device(index: int) -> Iterator[None]:
    """Let this thread build for GPU `index`: TensorRT builds for its thread's current device.

    The first one is current where nothing else is. Raises BackendError with the driver's reason.
    """
    if index == 0:
        yield
        return
    call = _driver()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    finally:
        call("cuDevicePrimaryCtxRelease_v2", device)


def _driver() -> Callable[..., None]:
    """What calls a function of the CUDA driver by its name. Both raise BackendError."""
    advice = "a target like sm_86 needs no GPU"
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise BackendError(f"no NVIDIA driver ({error}); {advice}") from error

    def call(function: str, *arguments: Any) -> None:
        if code := getattr(cuda, function)(*arguments):
            name = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(name))
            reason = (name.value or b"CUDA error").decode()
            raise BackendError(f"no usable NVIDIA GPU ({function}: {reason}, {code}); {advice}")

    return call
