"""pycuda as the engine uses it: context, copies, streams, a cubin, a network, a captured graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trtdet.benchmarks.gpu_micro import Floats, build_micro, micro_image, micro_logits
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values, WrongError
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.cubin import compile_cubin
from trtdet.engine.cuda import Bytes, Gpu
from trtdet.engine.cuda_graph import CapturedGraph, capture_reason
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.staging import KERNELS
from trtdet.engine.tensorrt_library import Library, load_library
from trtdet.errors import BackendError

_COPIED_BYTES = 64 << 20
_REPLAYS = 3


@dataclass(frozen=True)
class Sample:
    """A plan, an input, and what it gives."""

    plan: bytes
    image: Any
    logits: Floats
    tolerance: float


def run(bench: Bench) -> None:
    """A row for each part. Raises MissingError without pycuda or a GPU."""
    with open_gpu() as gpu:
        bench.row("context", partial(_context, gpu))
        bench.row("pinned copies", partial(_copies, gpu))
        bench.row("two streams and an event", partial(_streams, gpu))
        bench.row("module from a cubin", partial(_cubin, gpu))
        bench.row("captured copies", partial(_captured_copies, gpu))
    for captured in (False, True):
        name = "a captured network, replayed" if captured else "execute_async_v3(stream.handle)"
        bench.row(name, partial(_network, captured))


@contextmanager
def open_gpu() -> Iterator[Gpu]:
    """The first GPU, current in this thread. Raises MissingError with the reason."""
    try:
        gpu = Gpu()
    except BackendError as error:
        raise MissingError(str(error)) from error
    with closing(gpu), gpu.current():
        yield gpu


def best_library() -> Library:
    """The TensorRT that the engine would take. Raises MissingError."""
    try:
        return load_library("tensorrt", "tensorrt-rtx")
    except BackendError as error:
        raise MissingError(str(error)) from error


def make_sample(library: Library) -> Sample:
    """The network of two layers, for this GPU; portable where that cannot be. BackendError."""
    capability = getattr(getattr(library.trt, "ComputeCapability", None), "CURRENT", None)
    try:
        plan, _warned = build_micro(library, "fp32", capability)
    except BackendError:
        if capability is None:
            raise
        plan, _warned = build_micro(library, "fp32")
    return Sample(plan, micro_image(), micro_logits(), 1e-4)


def _context(gpu: Gpu, found: Values) -> None:
    found |= {"GPU": gpu.name, "target": gpu.target, "memory GiB": gpu.memory_bytes / 2**30}
    found["free GiB"] = gpu.free_bytes() / 2**30
    for name in ("get_version", "get_driver_version"):
        if hasattr(gpu.driver, name):
            found[name] = getattr(gpu.driver, name)()


def _copies(gpu: Gpu, found: Values) -> None:
    """There and back again, every byte."""
    with (
        gpu.stream() as stream,
        gpu.memory(_COPIED_BYTES) as device,
        gpu.pinned(_COPIED_BYTES) as source,
        gpu.pinned(_COPIED_BYTES) as target,
    ):
        source[:] = _noise(_COPIED_BYTES)
        started = time.perf_counter()
        gpu.upload(device, source, stream)
        gpu.download(target, device, stream)
        stream.synchronize()
        found["seconds"] = time.perf_counter() - started
        found["bytes that differ"] = int((source != target).sum())
    if found["bytes that differ"]:
        raise WrongError("bytes changed on their way to the device and back")


def _streams(gpu: Gpu, found: Values) -> None:
    """What one stream wrote is there for another once the event has passed."""
    size = 1 << 20
    with (
        gpu.stream() as first,
        gpu.stream() as second,
        gpu.memory(size) as device,
        gpu.pinned(size) as source,
        gpu.pinned(size) as target,
    ):
        source[:] = 7
        event = gpu.event()
        gpu.upload(device, source, first)
        event.record(first)
        event.synchronize()
        gpu.download(target, device, second)
        second.synchronize()
        found["handles"] = [hex(first.handle), hex(second.handle)]
        if not (target == 7).all():
            raise WrongError("the second stream read what the first had not written yet")


def _cubin(gpu: Gpu, found: Values) -> None:
    started = time.perf_counter()
    cubin = compile_cubin(gpu.target)
    found |= {"compile s": time.perf_counter() - started, "bytes": len(cubin)}
    started = time.perf_counter()
    functions = gpu.kernels(cubin, KERNELS, "PPP")
    found["load s"] = time.perf_counter() - started
    for name, function in zip(KERNELS, functions, strict=True):
        found[f"{name} registers"] = getattr(function, "num_regs", "unknown")


def _captured_copies(gpu: Gpu, found: Values) -> None:
    """Without TensorRT: whether a stream of pycuda's can be captured at all."""
    _need_capture()
    size = 1 << 16
    with ExitStack() as stack:
        stream = stack.enter_context(gpu.stream())
        device = stack.enter_context(gpu.memory(size))
        source, target = (stack.enter_context(gpu.pinned(size)) for _ in range(2))

        def work() -> None:
            gpu.upload(device, source, stream)
            gpu.download(target, device, stream)

        graph = CapturedGraph(stream.handle, work)
        stack.callback(graph.close)
        for value in range(1, _REPLAYS + 1):
            source[:] = value
            graph.replay()
            stream.synchronize()
            if not (target == value).all():
                raise WrongError(f"replay {value} gave other bytes")
        found["replays"] = _REPLAYS


def _network(captured: bool, found: Values) -> None:
    """TensorRT in a stream of pycuda's; captured, the replays take new inputs."""
    if captured:
        _need_capture()
    library = best_library()
    found["library"] = str(library)
    sample = make_sample(library)
    gpu = Gpu()
    try:
        plan = LoadedPlan(library, gpu, sample.plan, (INPUT_NAME, OUTPUT_NAME))
    except BaseException:
        gpu.close()
        raise
    with closing(plan), gpu.current():
        _run_network(gpu, plan, sample, captured, found)


def _run_network(gpu: Gpu, plan: LoadedPlan, sample: Sample, captured: bool, found: Values) -> None:
    with ExitStack() as stack:
        stream = stack.enter_context(gpu.stream())
        image = stack.enter_context(gpu.pinned(sample.image.nbytes))
        answer = stack.enter_context(gpu.pinned(sample.logits.nbytes))
        source = stack.enter_context(gpu.memory(sample.image.nbytes))
        target = stack.enter_context(gpu.memory(sample.logits.nbytes))
        context = plan.context()
        context.set_input_shape(INPUT_NAME, sample.image.shape)
        context.set_tensor_address(INPUT_NAME, source)
        context.set_tensor_address(OUTPUT_NAME, target)

        def work() -> None:
            plan.enqueue(context, stream)

        work()
        stream.synchronize()
        launch: Callable[[], None] = work
        if captured:
            with suppress(AttributeError, TypeError):  # TensorRT-RTX says it beforehand
                found["is_stream_capturable"] = context.is_stream_capturable(stream.handle)
            graph = CapturedGraph(stream.handle, work)
            stack.callback(graph.close)
            launch = graph.replay
        # The second time black comes in, so that what was there before cannot pass for an answer.
        for number, pixels in enumerate((sample.image, np.zeros_like(sample.image), sample.image)):
            image[:] = pixels.view(np.uint8).reshape(-1)
            gpu.upload(source, image, stream)
            launch()
            gpu.download(answer, target, stream)
            stream.synchronize()
            _compare(number, answer, sample, found)


def _compare(number: int, answer: Bytes, sample: Sample, found: Values) -> None:
    logits = answer.view(np.float32).reshape(sample.logits.shape)
    scale = 1.0 + float(np.abs(sample.logits).max())
    error = float(np.abs(logits - sample.logits).max()) / scale
    if number == 1:
        if error <= sample.tolerance:
            raise WrongError("another input gives the same logits")
        return
    found["largest error"] = error
    if not error <= sample.tolerance:
        raise WrongError(f"run {number}: {logits.tolist()}, not {sample.logits.tolist()}")


def _need_capture() -> None:
    if (reason := capture_reason()) is not None:
        raise MissingError(reason)


def _noise(size: int) -> Bytes:
    return np.random.default_rng(3).integers(0, 256, size, np.uint8)
