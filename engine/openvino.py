"""The OpenVINO backend: the embedded default where there is no NVIDIA GPU.

Every stream runs on one thread, so that no sum depends on how many cores a machine has: a
score is the same on two cores and on sixty-four of the same kind. Throughput comes from running as
many streams as there are cores, each with its own batch.

Each slot has a request of its own, bound to the slot's memory once. `AsyncInferQueue` would look up
a request and bind its input anew for every batch, in Python, which is felt where a network takes a
millisecond.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import OnDone
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.geometry import Geometry
from trtdet.engine.import_openvino import ov
from trtdet.engine.machine import core_count
from trtdet.errors import BackendError

# Images in flight per stream: enough that one slow decode does not starve the network.
IMAGES_AHEAD = 8

# A request counts as ended a moment before its callback has run.
CALLBACK_GRACE_S = 0.2


class OpenVinoSession:
    """See `trtdet.engine.backends.Session`. Raises BackendError when the graph does not compile."""

    def __init__(self, graph: Path, geometry: Geometry, *, batch: int, slots: int | None = None):
        streams = core_count()
        self.batch = batch
        self.slots = slots or max(2 * streams, IMAGES_AHEAD * streams // batch)
        self.name = f"openvino {ov.__version__.split('-')[0]} CPU"
        self.on_done: OnDone = _ignore
        shape = (batch, geometry.height, geometry.width, 3)
        try:
            core = ov.Core()
            model = core.read_model(graph)
            model.reshape({INPUT_NAME: list(shape)})
            compiled = core.compile_model(model, "CPU", _properties(streams))
            self._images = [np.zeros(shape, np.uint8) for _ in range(self.slots)]
            self._requests = [compiled.create_infer_request() for _ in range(self.slots)]
        except (RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split()) or "out of memory"
            raise BackendError(
                f"OpenVINO cannot compile {graph} for batches of {batch}: {reason}. "
                "If memory is short, give a smaller --batch"
            ) from error
        self._logits: list[NDArray[np.float32]] = []
        self._running: set[int] = set()
        for slot, request in enumerate(self._requests):
            request.set_input_tensor(ov.Tensor(self._images[slot], shared_memory=True))
            request.set_callback(self._finish, slot)
            self._logits.append(request.get_tensor(compiled.output(OUTPUT_NAME)).data[:, 0])

    def images(self, slot: int) -> NDArray[np.uint8]:
        """The slot's input, uint8 [batch, H, W, 3]."""
        return self._images[slot]

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch]."""
        return self._logits[slot]

    def start(self, slot: int) -> None:
        """Run the slot's batch. The streams take the requests in the order of their start."""
        self._running.add(slot)
        self._requests[slot].start_async()

    def check(self) -> None:
        """Raise what a request raised: OpenVINO does not call back for a request that failed."""
        for slot in list(self._running):
            if not self._requests[slot].wait_for(0):
                continue
            reason = "a request ended without a result"
            try:
                self._requests[slot].wait()
                time.sleep(CALLBACK_GRACE_S)
            except RuntimeError as error:
                reason = str(error)
            if slot in self._running:
                raise BackendError(f"{self.name} failed while it ran: {reason}")

    def close(self) -> None:
        """Wait for what runs."""
        for slot in list(self._running):
            with suppress(RuntimeError):  # it was reported by `check`, or nobody waits for it
                self._requests[slot].wait()

    def _finish(self, slot: int) -> None:
        self._running.discard(slot)
        self.on_done(slot)


def _properties(streams: int) -> dict[str, Any]:
    return {
        # On a CPU with bfloat16 OpenVINO would take it, and the logits would drift.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        # Not CPU_DENORMALS_OPTIMIZATION: it would flush the denormals of the calling thread, too,
        # whatever else that computes. A bundle's weights have none, and it gained nothing.
    }


def _ignore(_slot: int) -> None:
    pass
