"""The TensorRT that compiles here: found, named, asked for its targets, and listened to."""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from trtdet.build.plan_key import Flavour
from trtdet.errors import BackendError, InputError

CURRENT = "current"

# Best first, for `current`. TensorRT-RTX's wheels bring the last module; the one before it is a
# metapackage that can be missing.
MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

# A failure is logged last, and the lines just before it name its cause.
_KEPT_MESSAGES = 8

_CC_MAJOR, _CC_MINOR = 75, 76  # CUdevice_attribute of cuda.h


@dataclass(frozen=True)
class Library:
    flavour: Flavour
    trt: ModuleType

    def __str__(self) -> str:
        return f"{self.flavour} {self.trt.__version__}"

    @property
    def offers(self) -> dict[str, Any]:
        """What it compiles for ahead of time: {"sm_86": ComputeCapability.SM86, ...}."""
        members = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
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
            found.append(f"{library}: {', '.join((*library.offers, current))}")
    return " ".join(("; ".join(found) or "no: " + "; ".join(reasons)).split())


def load_library(*flavours: Flavour, say: Callable[[str], None] = lambda _line: None) -> Library:
    """The first of the flavours that can be imported; `say` hears why those before it cannot."""
    reasons = []
    for flavour in flavours:
        for module in MODULES[flavour]:
            try:
                library = Library(flavour, importlib.import_module(module))
            except (ImportError, OSError) as error:  # OSError: its shared libraries do not load
                reasons.append(f"{module}: {error}")
                continue
            if reasons:
                say(f"{library} is used ({'; '.join(reasons)})")
            return library
    raise BackendError(
        f"no {' or '.join(flavours)} to compile with ({'; '.join(reasons)}): "
        f"pip install 'trtdet[{flavours[-1]}]'"
    )


def find_capability(library: Library, target: str) -> Any:
    if target not in library.offers:
        raise InputError(
            f"{library} cannot compile for '{target}' ahead of time; it offers "
            f"{', '.join(library.offers)}. For another GPU, compile on a machine that has it, with "
            f"target '{CURRENT}' and full TensorRT (pip install 'trtdet[tensorrt]'; JetPack has it)"
        )
    return library.offers[target]


def current_gpu() -> tuple[str, str]:
    """The first GPU, as ("sm_87", "Orin"). Raises BackendError with the loader's or CUDA's reason.

    The driver is asked directly: TensorRT gives no name, and the key needs the compute capability.
    """
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

    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetAttribute", ctypes.byref(major), _CC_MAJOR, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), _CC_MINOR, device)
    call("cuDeviceGetName", name, len(name), device)
    return f"sm_{major.value}{minor.value}", name.value.decode(errors="replace")


@functools.cache  # TensorRT keeps the first logger of a process for all that follow
def logger_of(trt: ModuleType) -> Any:
    """A logger that prints nothing and remembers the last warnings and errors."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # a module found at run time
        def __init__(self) -> None:
            super().__init__()
            self.messages: deque[tuple[bool, str]] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (self.INTERNAL_ERROR, self.ERROR, self.WARNING):
                self.messages.append((severity != self.WARNING, " ".join(message.split())))

        def last(self) -> str:
            """The last errors, or the last warnings where there is no error."""
            errors = [text for is_error, text in self.messages if is_error]
            return "; ".join(errors or [text for _, text in self.messages])

    return Log()
