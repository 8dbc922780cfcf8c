"""Names for the parts of a run: a profiler's timeline shows them, and a benchmark times them.

Nsight Systems shows them where `nvtx` is installed. Where nobody watches they cost next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

try:
    from nvtx import annotate as _annotate  # type: ignore[import-not-found]
except ImportError:  # no profiler is watching
    _annotate = None

Heard = Callable[[str, float], None]  # a part's name and its seconds, in the thread that ran it

_NOTHING = nullcontext()
_heard: Heard | None = None


def stage(name: str) -> AbstractContextManager[object]:
    """A range of the timeline, for as long as the block runs."""
    if _heard is not None:
        return _Timed(name, _heard)
    if _annotate is None:
        return _NOTHING
    return _annotate(name, domain="trtdet")  # type: ignore[no-any-return]


@contextmanager
def listen(heard: Heard) -> Iterator[None]:
    """While the block runs, `heard` is told of every part that ends, in place of a profiler."""
    global _heard
    before, _heard = _heard, heard
    try:
        yield
    finally:
        _heard = before


class _Timed:
    def __init__(self, name: str, heard: Heard):
        self._name, self._heard = name, heard

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._heard(self._name, time.perf_counter() - self._start)
