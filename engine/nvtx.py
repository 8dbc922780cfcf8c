"""Names for a profiler's timeline: Nsight Systems shows them where `nvtx` is installed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

try:
    from nvtx import annotate as _annotate  # type: ignore[import-not-found]
except ImportError:  # nobody is watching
    _annotate = None

_NOTHING = nullcontext()


def stage(name: str) -> AbstractContextManager[object]:
    """A range of the timeline, for as long as the block runs."""
    if _annotate is None:
        return _NOTHING
    return _annotate(name, domain="trtdet")  # type: ignore[no-any-return]
