"""A captured batch: the launches of a network replayed as one, where launching is what costs.

pycuda has no capture, so this goes through `cuda-bindings`, on the handle of pycuda's stream. It
matters for small networks and small batches; a large network hides its launches anyway.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from trtdet.errors import BackendError


class CapturedGraph:
    """What `launch` put into a stream, to be replayed by `replay`. Close it before its stream.

    Raises BackendError where it cannot be captured: the stream is usable all the same.
    """

    def __init__(self, handle: int, launch: Callable[[], None]):
        self._cuda, self._stream = _load(), handle
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._graph: Any = None
        self._ready: Any = None
        self._call("cuStreamBeginCapture", handle, mode)
        try:
            launch()
        except BaseException:
            with suppress(BackendError):  # a stream that stays in capture takes no other work
                self._graph = self._call("cuStreamEndCapture", handle)
            self.close()
            raise
        self._graph = self._call("cuStreamEndCapture", handle)
        try:
            self._ready = self._call("cuGraphInstantiate", self._graph, 0)
        except BackendError:
            self.close()
            raise

    def replay(self) -> None:
        """Put the captured work into the stream."""
        self._call("cuGraphLaunch", self._ready, self._stream)

    def close(self) -> None:
        """Let go of it."""
        if self._ready is not None:
            self._call("cuGraphExecDestroy", self._ready)
        if self._graph is not None:
            self._call("cuGraphDestroy", self._graph)
        self._ready = self._graph = None

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *results = getattr(self._cuda, function)(*arguments)
        if int(code):
            raise BackendError(f"{function}: {getattr(code, 'name', code)}")
        return results[0] if results else None


def capture_reason() -> str | None:
    """Why nothing can be captured here; None where it can."""
    try:
        _load()
    except BackendError as error:
        return str(error)
    return None


def _load() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"cuda-bindings does not load ({error})") from error
