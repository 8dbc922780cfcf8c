"""Keep the codecs' own words off the terminal: C code that prints where nobody can ask it not to.

libjpeg, libpng and libtiff print to C's `stderr` stream about damaged images, and neither OpenCV
nor Pillow has a switch for all of it. Redirecting descriptor 2 would take Python's messages, and
other libraries' too; so here the C library's *variable* `stderr` points at the null device while a
decoder runs, and only code that prints through that variable (never Python) is muted.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from threading import Lock
from types import TracebackType


class MutedCStderr:
    """A context in which C code in this process prints nothing to `stderr`. Threads may share it.

    It does nothing where the variable cannot be replaced safely: it is a constant in musl, and no
    variable at all on Windows.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0  # threads in the context now: the first mutes, the last restores
        self._spoken: int | None = None
        self._variable: ctypes.c_void_p | None
        self._variable, self._null = _c_streams() or (None, 0)

    def __enter__(self) -> None:
        if self._variable is None:
            return
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._spoken = self._variable.value
                self._variable.value = self._null

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._variable is None:
            return
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._variable.value = self._spoken


@cache
def _c_streams() -> tuple[ctypes.c_void_p, int] | None:
    """The C library's `stderr` variable, and a stream on the null device, opened once a process."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        name = "stderr"
    elif sys.platform == "darwin":
        name = "__stderrp"
    else:
        return None
    library.fopen.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    library.fopen.restype = ctypes.c_void_p
    null = library.fopen(os.devnull.encode(), b"we")  # e: children do not inherit it
    return (ctypes.c_void_p.in_dll(library, name), null) if null else None
