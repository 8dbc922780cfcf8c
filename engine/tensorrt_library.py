"""The TensorRT of this machine: found, named and listened to, for compiling and for scoring."""

from __future__ import annotations

import functools
import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from trtdet.errors import BackendError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

# Best first. TensorRT-RTX's wheels bring its last module; the one before it is a metapackage that
# can be missing.
MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

# What only runs plans: the lean runtime, for those compiled with `--version-compatible`.
LEAN_MODULES = ("tensorrt_lean", "tensorrt_lean_bindings")

# A failure is logged last, and the lines just before it name its cause.
_KEPT_MESSAGES = 8


@dataclass(frozen=True)
class Library:
    """An imported TensorRT."""

    flavour: Flavour
    trt: ModuleType
    lean: bool = False

    def __str__(self) -> str:
        return f"{self.flavour}{' lean' if self.lean else ''} {self.trt.__version__}"


def load_library(
    *flavours: Flavour, say: Callable[[str], None] = lambda _line: None, lean: bool = False
) -> Library:
    """The first of the flavours that can be imported; `say` hears why those before it cannot.

    `lean`: the lean runtime will do, where no other is. Raises BackendError.
    """
    reasons = []
    modules = [(flavour, name) for flavour in flavours for name in MODULES[flavour]]
    if lean and "tensorrt" in flavours:
        modules += [("tensorrt", name) for name in LEAN_MODULES]
    for flavour, name in modules:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: its shared libraries do not load
            reasons.append(f"{name}: {error}")
            continue
        library = Library(flavour, module, name in LEAN_MODULES)
        if reasons:
            say(f"{library} is used ({'; '.join(reasons)})")
        return library
    raise BackendError(
        f"no {' or '.join(flavours)} here ({'; '.join(reasons)}): "
        f"pip install 'trtdet[{flavours[-1]}]'"
    )


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
