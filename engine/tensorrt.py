"""A TensorRT plan that scores batches of fixed size on a GPU.

A slot is page-locked memory that decode threads fill. Each stream has its own execution context and
device memory, and runs one slot at a time:

    upload ─▶ resize (CUDA kernels) ─▶ network ─▶ download of the logits

A detector that resizes gets the decoded pixels, of any size, and the kernels bring them to its
input with Pillow's very bytes, see `trtdet.engine.staging`. Any other gets its input ready made, so
that of a crop nothing but the crop is uploaded. Everything in a stream is in order, and a stream
waits for itself alone.

The network is captured as a CUDA graph where `cuda-bindings` is installed and TensorRT allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import OnDone
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME, Bundle
from trtdet.engine.cuda import Bytes
from trtdet.engine.cuda_graph import CapturedGraph
from trtdet.engine.geometry import Geometry, Pixels
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.nvtx import stage
from trtdet.engine.slot_input import SlotInput, make_slot_input
from trtdet.engine.steps import Rgb
from trtdet.engine.tensorrt_library import Flavour
from trtdet.engine.workers import Run, Workers, ending
from trtdet.errors import BackendError


@dataclass(frozen=True)
class GpuOptions:
    """How a session uses the GPU."""

    device: int = 0
    flavour: Flavour | None = None  # None: the first that is installed
    plan: Path | None = None  # this very plan; None: the newest that fits
    slots: int = 3  # batches in flight
    streams: int | None = None  # batches on the GPU at once; None: as many as slots
    graph: bool = True  # capture the network as a CUDA graph
    trust: bool = False  # plans and kernels that were compiled elsewhere, too
    on_miss: Callable[[Bundle, int | None, int], object] | None = None  # for a batch, a device
    say: Callable[[str], None] = lambda _line: None


class TensorRtSession:
    """A network with a fixed input. See `trtdet.engine.backends.Session`.

    It owns the plan. `cubin` are the compiled kernels of `preprocess.cu`; without them every image
    is brought to the detector's size on the host, to the same bytes.
    """

    def __init__(
        self,
        plan: LoadedPlan,
        geometry: Geometry,
        *,
        batch: int,
        outputs: int,
        cubin: bytes | None = None,
        options: GpuOptions | None = None,
    ):
        self._options = options or GpuOptions()
        self.batch, self.slots = batch, self._options.slots
        self.name = plan.name
        self.on_done: OnDone = lambda _slot: None
        self.probe_logits: NDArray[np.float32] | None = None  # as this plan was judged with
        self._plan, self._geometry, self._cubin = plan, geometry, cubin
        gpu = self._gpu = plan.gpu
        self._said = False
        self._shape = (batch * geometry.views, *geometry.fixed_size, 3)
        self._logits_shape = (batch * geometry.views, outputs)
        with ExitStack() as stack:
            stack.enter_context(gpu.current())
            pinned = stack.enter_context(ExitStack())
            self._inputs = [self._slot_input(pinned) for _ in range(self.slots)]
            size = 4 * int(np.prod(self._logits_shape))
            self._answers = [pinned.enter_context(gpu.pinned(size)) for _ in range(self.slots)]
            streams = min(self._options.streams or self.slots, self.slots)
            self._workers = Workers(gpu, streams, self._open_stream, self._ended)
            self._pinned = pinned.pop_all()

    def load(self, slot: int, position: int, rgb: Rgb) -> None:
        """A decoded image [h, w, 3] into its place, to be resized on the GPU."""
        self._inputs[slot].load(position, rgb)

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image's inputs [views, H, W, 3] into its place."""
        self._inputs[slot].put(position, views)

    def blank(self, slot: int, position: int) -> None:
        """Black in that place."""
        self._inputs[slot].blank(position)

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch, K], averaged over an image's views."""
        logits = self._answers[slot].view(np.float32).reshape(self._logits_shape)
        if self._geometry.views == 1:
            return logits
        by_view = logits.reshape(self.batch, self._geometry.views, -1)
        return np.asarray(by_view.mean(1, dtype=np.float64), np.float32)

    def start(self, slot: int) -> None:
        """Run the slot's batch as soon as a stream is free."""
        self._workers.start(slot)

    def check(self) -> None:
        """Raise BackendError if the GPU failed."""
        self._workers.check()

    def close(self) -> None:
        """Wait for what runs, and let go of everything."""
        self._workers.close()
        self._inputs.clear()
        self._answers.clear()
        with self._gpu.current():
            self._pinned.close()
        self._plan.close()

    def _slot_input(self, pinned: ExitStack) -> SlotInput:
        def allocate(size: int) -> Bytes:
            return pinned.enter_context(self._gpu.pinned(size))

        return make_slot_input(self._geometry, self.batch, allocate, resize=self._cubin is not None)

    def _ended(self, slot: int) -> None:
        self._inputs[slot].reset()
        self.on_done(slot)

    def _open_stream(self, stack: ExitStack) -> Run:
        """In a stream's own thread: its memory, its context, and what runs a slot with them."""
        gpu, plan, first = self._gpu, self._plan, self._inputs[0]
        stream = stack.enter_context(gpu.stream())
        event = gpu.event()
        image_bytes = int(np.prod(self._shape)) * np.dtype(self._geometry.dtype).itemsize
        image = stack.enter_context(gpu.memory(image_bytes))
        gpu.clear(image, image_bytes)
        answer = stack.enter_context(gpu.memory(self._answers[0].nbytes))
        device = first.open_device(gpu, stack, self._cubin)
        stack.callback(gpu.drain, stream)  # before what it copies from is freed
        context = plan.context()
        if not context.set_input_shape(INPUT_NAME, self._shape):
            raise BackendError(f"the plan does not take a batch of shape {list(self._shape)}")
        context.set_tensor_address(INPUT_NAME, image)
        context.set_tensor_address(OUTPUT_NAME, answer)

        def network() -> None:
            plan.enqueue(context, stream)

        network()  # TensorRT prepares what it needs: nothing of that may be captured
        with gpu.waiting():
            stream.synchronize()
        launch = network
        if self._options.graph and (
            captured := self._captured(stack, context, stream, network, answer)
        ):
            launch = captured

        def run(slot: int) -> None:
            with stage("upload and resize"):
                self._inputs[slot].enqueue(gpu, device, image, stream)
            with stage("network"):
                launch()
            gpu.download(self._answers[slot], answer, stream)
            event.record(stream)
            with stage("wait"), gpu.waiting():
                event.synchronize()

        return run

    def _captured(
        self,
        stack: ExitStack,
        context: Any,
        stream: Any,
        network: Callable[[], None],
        answer: int,
    ) -> Callable[[], None] | None:
        """The network's replay, which gives what the network gives; None where it cannot be had."""
        try:
            self._plan.check_capturable(context, stream)
            captured = CapturedGraph(stream.handle, network)
        except BackendError as error:
            self._say_no_graph(str(error))
            network()  # a capture that failed may have left the context in the middle of it
            with self._gpu.waiting():
                stream.synchronize()
            return None
        stack.callback(ending(captured.close))
        first = self._answer_of(network, answer, stream)
        self._gpu.clear(answer, first.nbytes)
        if not np.array_equal(self._answer_of(captured.replay, answer, stream), first):
            self._say_no_graph("its replay does not give what the network gives")
            return None
        return captured.replay

    def _answer_of(self, launch: Callable[[], None], answer: int, stream: Any) -> Bytes:
        """The bytes of the logits after a launch, whatever is in the input."""
        size = self._answers[0].nbytes
        with self._gpu.pinned(size) as place:
            launch()
            self._gpu.download(place, answer, stream)
            with self._gpu.waiting():
                stream.synchronize()
            answered: Bytes = place.copy()
            return answered

    def _say_no_graph(self, reason: str) -> None:
        """Once for all streams."""
        if not self._said:
            self._options.say(f"no CUDA graph: {reason}")
        self._said = True
