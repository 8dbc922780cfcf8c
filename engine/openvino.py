"""The OpenVINO backend: the embedded default where there is no NVIDIA GPU.

Every stream runs on one thread, so that no sum depends on how many cores a machine has: a
score is the same on two cores and on sixty-four of the same kind. Throughput comes from running as
many streams as there are cores, each with its own batch.

Each slot has a request of its own, bound to the slot's memory once. `AsyncInferQueue` would look up
a request and bind its input anew for every batch, in Python, which is felt where a network takes a
millisecond.
"""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import OnDone
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.engine.import_openvino import ov
from trtdet.engine.machine import core_count
from trtdet.engine.nvtx import stage
from trtdet.engine.steps import Rgb
from trtdet.errors import BackendError, WeightsError

# Images in flight per stream: enough that one slow decode does not starve the network.
IMAGES_AHEAD = 8

# A request counts as ended a moment before its callback has run.
CALLBACK_GRACE_S = 0.2


class OpenVinoRequests:
    """A compiled graph and one request per slot: what every OpenVINO session has.

    Raises BackendError when the graph does not compile.
    """

    def __init__(
        self,
        graph: Path,
        geometry: Geometry,
        shapes: dict[str, list[int]],
        *,
        batch: int,
        slots: int,
        streams: int,
    ):
        self._geometry = geometry
        self.batch, self.slots = batch, slots
        self.name = f"openvino {ov.__version__.split('-')[0]} CPU"
        self.on_done: OnDone = _ignore
        try:
            core = ov.Core()
            model = core.read_model(graph)
            model.reshape(shapes)
            compiled = core.compile_model(model, "CPU", _properties(streams))
            self._requests = [compiled.create_infer_request() for _ in range(slots)]
        except (RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split()) or "out of memory"
            raise BackendError(
                f"OpenVINO cannot compile {graph} for batches of {batch}: {reason}. "
                "If memory is short, give a smaller --batch"
            ) from error
        if layers := weights_made_at_run_time(compiled):
            self._requests.clear()
            raise WeightsError(
                f"OpenVINO has no 8-bit kernel on this machine for {len(layers)} of the layers in "
                f"{graph}, and was seen to compute such weights wrongly: build the engine here",
                layers,
            )
        self._running: dict[int, int] = {}  # slot: which of all starts it was
        self._starts = itertools.count()
        self._broken: BaseException | None = None  # what a callback raised
        for slot, request in enumerate(self._requests):
            request.set_callback(self._called_back, slot)

    def load(self, slot: int, position: int, rgb: Rgb) -> None:
        """A decoded image into its place."""
        with stage("geometry"):
            views = apply_geometry(self._geometry, rgb)
        with stage("copy"):
            self.put(slot, position, views)

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image's inputs into their place."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what a request raised: OpenVINO does not call back for a request that failed."""
        for slot, start in list(self._running.items()):
            reason = "a request ended without a result"
            try:
                if not self._requests[slot].wait_for(0):
                    continue
                self._requests[slot].wait()
                time.sleep(CALLBACK_GRACE_S)
            except RuntimeError as error:
                reason = str(error)
            if self._running.get(slot) == start:
                raise BackendError(f"{self.name} failed while it ran: {self._broken or reason}")

    def close(self) -> None:
        """Wait for what runs, and let go of the compiled graph."""
        for slot in list(self._running):
            with suppress(RuntimeError):  # it was reported by `check`, or nobody waits for it
                self._requests[slot].wait()
        # A request holds its callback, which holds the session: nobody else would break the circle.
        self._requests.clear()

    def _run(self, slot: int) -> None:
        self._running[slot] = next(self._starts)
        self._requests[slot].start_async()

    def _called_back(self, slot: int) -> None:
        try:
            self._ended(slot)
        except BaseException as error:  # OpenVINO would drop it: `check` raises it
            self._broken = error

    def _ended(self, slot: int) -> None:
        """In a thread of OpenVINO: the slot's request has a result."""
        self._running.pop(slot, None)
        self.on_done(slot)


def weights_made_at_run_time(compiled: ov.CompiledModel) -> tuple[str, ...]:
    """What dequantises constant weights in the compiled graph, by the names of its nodes.

    A layer that OpenVINO runs in 8 bits has its weights folded in. Where it cannot, it dequantises
    them once, in the graph; OpenVINO 2026.4 was seen to do so wrongly in 4 of 120 compilations of
    one and the same file, with logits off by a hundred.
    """
    constant: dict[str, bool] = {}  # of what is constant: whether it comes from 8 bits
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        name, still = node.get_friendly_name(), about.get("outputPrecisions") == "i8"
        if about.get("layerType") == "Const":
            constant[name] = still
            continue
        makers = [each.get_node().get_friendly_name() for each in node.input_values()]
        if makers and constant.keys() >= set(makers):
            constant[name] = any(constant[maker] for maker in makers)
            if constant[name] and not still:
                found.append(about.get("originalLayersNames", name))
    return tuple(found)


class OpenVinoSession(OpenVinoRequests):
    """A network with a fixed input. See `trtdet.engine.backends.Session`."""

    def __init__(
        self,
        graph: Path,
        geometry: Geometry,
        *,
        batch: int,
        slots: int | None = None,
        streams: int | None = None,
    ):
        streams = streams or core_count()
        self._views = geometry.views
        shape = (batch * self._views, *geometry.fixed_size, 3)
        slots = slots or max(2 * streams, IMAGES_AHEAD * streams // batch)
        shapes = {INPUT_NAME: list(shape)}
        super().__init__(graph, geometry, shapes, batch=batch, slots=slots, streams=streams)
        self._pixels = [np.zeros(shape, np.dtype(geometry.dtype)) for _ in range(slots)]
        self._outputs: list[NDArray[np.float32]] = []
        for slot, request in enumerate(self._requests):
            request.set_input_tensor(ov.Tensor(self._pixels[slot], shared_memory=True))
            self._outputs.append(request.get_tensor(OUTPUT_NAME).data)

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image's inputs [views, H, W, 3] into its place in the slot."""
        self._pixels[slot][self._places(position)] = views

    def blank(self, slot: int, position: int) -> None:
        """Black in that place."""
        self._pixels[slot][self._places(position)] = 0

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch, K], averaged over an image's views."""
        if self._views == 1:
            return self._outputs[slot]
        by_view = self._outputs[slot].reshape(self.batch, self._views, -1)
        return np.asarray(by_view.mean(1, dtype=np.float64), np.float32)

    def start(self, slot: int) -> None:
        """Run the slot's batch. The streams take the requests in the order of their start."""
        self._run(slot)

    def _places(self, position: int) -> slice:
        return slice(position * self._views, (position + 1) * self._views)


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
