"""The OpenVINO backend: the embedded default where there is no NVIDIA GPU.

Every stream runs on one thread, so that no sum depends on how many cores a machine has: a
score is the same on two cores and on sixty-four of the same kind. Throughput comes from running as
many streams as there are cores, each with its own batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from trtdet.engine.backends import OnDone
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.geometry import Geometry
from trtdet.engine.machine import core_count
from trtdet.errors import BackendError

# Images in flight per stream: enough that one slow decode does not starve the network.
IMAGES_AHEAD = 8


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
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile {graph}: {error}") from error
        self._output = compiled.output(OUTPUT_NAME)
        self._images = [np.zeros(shape, np.uint8) for _ in range(self.slots)]
        self._inputs = [ov.Tensor(images, shared_memory=True) for images in self._images]
        self._logits: NDArray[np.float32] = np.empty((self.slots, batch), np.float32)
        self._queue = ov.AsyncInferQueue(compiled, self.slots)
        self._queue.set_callback(self._finish)
        self._running: set[int] = set()

    def images(self, slot: int) -> NDArray[np.uint8]:
        """The slot's input, uint8 [batch, H, W, 3]."""
        return self._images[slot]

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch]."""
        logits: NDArray[np.float32] = self._logits[slot]
        return logits

    def start(self, slot: int) -> None:
        """Run the slot's batch. There are as many requests as slots, so this never waits."""
        self._running.add(slot)
        self._queue.start_async({INPUT_NAME: self._inputs[slot]}, slot, share_inputs=True)

    def check(self) -> None:
        """Raise what a request raised: the queue drops a failed request without calling back."""
        if self._queue.is_ready() and self._running:
            reason = "a request ended without a result"
            try:
                self._queue.wait_all()
            except RuntimeError as error:
                reason = str(error)
            if self._running:
                raise BackendError(f"{self.name} failed while it ran: {reason}")

    def close(self) -> None:
        """Wait for what runs."""
        self._queue.wait_all()

    def _finish(self, request: Any, slot: int) -> None:
        self._logits[slot] = request.get_tensor(self._output).data[:, 0]
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
