"""The peer on the same GPU: every detector in PyTorch fp16, eager and compiled, weights random.

The network is the paper's, nothing folded or left out; pixels are on the GPU before the clock
starts. After a warm-up, milliseconds are the median of CUDA events around each run; images per
second are those of a queue of runs, as `gpu_throughput` has a plan's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from trtdet.benchmarks.gpu_clock import seconds_of
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values
from trtdet.benchmarks.gpu_state import gauges

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trtdet.build.detectors.spec import DetectorSpec

BATCHES = (32, 1, 8, 128)
COMPILED_BATCHES = (32, 1)

# At native resolution there is no size: this one, height and width.
_NATIVE_SIZE = (256, 256)

_WARM_UP_S, _MEASURE_S, _LEAST_RUNS, _MOST_RUNS = 0.5, 1.5, 5, 200


def run(bench: Bench) -> None:
    """A row for each detector, batch and mode. Raises MissingError without torch on a GPU."""
    need_torch_gpu()
    from trtdet.build.detectors.registry import detectors

    specs = list(detectors().values())
    for batch in BATCHES:
        for spec in specs:
            bench.row(f"{spec.name} eager, batch {batch}", partial(time_detector, spec, batch))
    for batch in COMPILED_BATCHES:
        for spec in specs:
            measure = partial(time_detector, spec, batch, compiled=True)
            bench.row(f"{spec.name} torch.compile, batch {batch}", measure)


def need_torch_gpu() -> None:
    """Raise MissingError where torch cannot reach a GPU."""
    try:
        import torch
    except ImportError as error:
        raise MissingError(f"no torch: {error}") from error
    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise MissingError(
            f"torch {torch.__version__} sees no GPU"
            + ("" if built else ", and was built without CUDA")
        )


def time_detector(
    spec: DetectorSpec, batch: int, found: Values, *, compiled: bool = False, device: str = "cuda"
) -> None:
    """Milliseconds of a batch by itself, and images per second of many in a queue."""
    import torch

    from trtdet.benchmarks.gpu_weights import random_network

    height = spec.geometry.height or _NATIVE_SIZE[0]
    width = spec.geometry.width or _NATIVE_SIZE[1]
    dtype = torch.float16 if device == "cuda" else torch.float32
    network: Any = random_network(spec, spec.variants[0], device).to(device, dtype)
    network.to(memory_format=torch.channels_last)  # what cuDNN's fp16 kernels want
    module: Callable[[Tensor], Tensor] = _Half(network, spec, device, dtype).forward
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (batch, height, width, 3), generator=generator).to(torch.uint8)
    pixels = pixels.to(device)
    found["input"] = [batch, height, width, 3]
    try:
        with torch.inference_mode():
            if compiled:
                torch._dynamo.reset()
                module = torch.compile(module, dynamic=False)
                started = time.perf_counter()
                module(pixels)
                found["compile s"] = time.perf_counter() - started
            found["finite"] = bool(torch.isfinite(module(pixels)).all())
            times, found["under load"] = _times(lambda: module(pixels), device)
            wait = torch.cuda.synchronize if device == "cuda" else lambda: None
            queued = seconds_of(lambda: module(pixels), wait)
    finally:
        if device == "cuda":
            found["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
            del network, module, pixels
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    found["ms"] = median(times)
    found |= {"ms p90": sorted(times)[int(0.9 * len(times))], "runs": len(times)}
    found["images/s"] = batch / queued


class _Half:
    """A detector with its normalisation in front: uint8 [N, H, W, 3] to [N, 1], all in one type."""

    def __init__(self, network: nn.Module, spec: DetectorSpec, device: str, dtype: Any):
        import torch

        self._network, self._dtype = network, dtype
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
            for values in (spec.normalization.mean, spec.normalization.std)
        )
        self._scale, self._shift = 1.0 / (255.0 * std), -mean / std

    def forward(self, image: Tensor) -> Tensor:
        """The logits."""
        x = image.permute(0, 3, 1, 2).to(self._dtype) * self._scale + self._shift
        logit: Tensor = self._network(x)
        return logit


def _times(once: Callable[[], object], device: str) -> tuple[list[float], Values]:
    """Milliseconds of each run, and the GPU's state meanwhile."""
    end = time.monotonic() + _WARM_UP_S
    for _ in range(_LEAST_RUNS):
        once()
    while time.monotonic() < end:
        _timed(once, device)
    times: list[float] = []
    end = time.monotonic() + _MEASURE_S
    with gauges() as state:
        while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and time.monotonic() < end):
            times.append(_timed(once, device))
    return times, state


def _timed(once: Callable[[], object], device: str) -> float:
    """Milliseconds of one run: CUDA's own clock where there is one."""
    if device != "cuda":
        started = time.perf_counter()
        once()
        return 1e3 * (time.perf_counter() - started)
    import torch

    make_event: Any = torch.cuda.Event
    start, stop = (make_event(enable_timing=True) for _ in range(2))
    start.record()
    once()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))
