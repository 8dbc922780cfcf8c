"""What each stage of an image's way costs by itself: decode, load, copies, kernels, network.

Decoding and loading are shared among all cores, so that their seconds per image are those of the
whole machine; the GPU's stages run one batch at a time in one stream.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from trtdet.benchmarks.gpu_clock import seconds_of
from trtdet.benchmarks.gpu_compiled import kernels_of
from trtdet.benchmarks.gpu_resizer import Resizer
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME, Bundle
from trtdet.engine.cuda import Gpu
from trtdet.engine.cuda_graph import CapturedGraph
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.engine.geometry import apply_geometry
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.machine import core_count
from trtdet.engine.steps import Rgb
from trtdet.errors import BackendError, ImageError


@dataclass(frozen=True)
class Network:
    """A network in a stream of its own, its input on the device."""

    stream: Any
    launch: Callable[[], None]
    captured: bool


def time_stages(
    plan: LoadedPlan, bundle: Bundle, batch: int, paths: Sequence[Path]
) -> dict[str, float]:
    """Seconds per image of each stage, in the order that they come in."""
    images = read_images(paths, batch)
    with ExitStack() as stack:
        stages = {"decode": decode_s(paths)}
        stages |= _input_stages(plan.gpu, stack, bundle, list(islice(cycle(images), batch)))
        network = stack.enter_context(open_network(plan, bundle, batch))
        stages["network"] = seconds_of(network.launch, network.stream.synchronize) / batch
        size = 4 * batch * bundle.geometry.views * len(bundle.outputs)
        logits = stack.enter_context(plan.gpu.pinned(size))
        source = stack.enter_context(plan.gpu.memory(size))
        stages["download"] = (
            seconds_of(
                lambda: plan.gpu.download(logits, source, network.stream),
                network.stream.synchronize,
            )
            / batch
        )
    return stages


def decode_s(paths: Sequence[Path]) -> float:
    """Seconds per file to read and decode, on all cores."""
    quiet_decoders()
    started = time.perf_counter()
    with ThreadPoolExecutor(core_count()) as pool:
        deque(pool.map(_decode, paths), maxlen=0)
    return (time.perf_counter() - started) / len(paths)


def read_images(paths: Sequence[Path], count: int) -> list[Rgb]:
    """Some decoded images, as many as there are up to `count`. Raises ImageError for none."""
    images = [rgb for path in paths[:count] if (rgb := _decode(path)) is not None]
    if not images:
        raise ImageError(f"none of {count} files can be decoded, {paths[0]} for instance")
    return images


@contextmanager
def open_network(plan: LoadedPlan, bundle: Bundle, batch: int) -> Iterator[Network]:
    """The network ready to be launched; without a graph where capture does not work.

    Raises BackendError.
    """
    gpu, geometry = plan.gpu, bundle.geometry
    shape = (batch * geometry.views, *geometry.fixed_size, 3)
    with ExitStack() as stack:
        stream = stack.enter_context(gpu.stream())
        pixels = stack.enter_context(
            gpu.pinned(math.prod(shape) * np.dtype(geometry.dtype).itemsize)
        )
        # Noise: a network of zeros draws less power, and the clock stays higher.
        values = np.random.default_rng(5).integers(0, 256, math.prod(shape), np.uint8)
        pixels[:] = values.astype(geometry.dtype).view(np.uint8)
        image = stack.enter_context(gpu.memory(pixels.nbytes))
        answer = stack.enter_context(gpu.memory(4 * shape[0] * len(bundle.outputs)))
        gpu.upload(image, pixels, stream)
        context = plan.context()
        if not context.set_input_shape(INPUT_NAME, shape):
            raise BackendError(f"the plan does not take a batch of shape {list(shape)}")
        context.set_tensor_address(INPUT_NAME, image)
        context.set_tensor_address(OUTPUT_NAME, answer)

        def network() -> None:
            plan.enqueue(context, stream)

        network()
        stream.synchronize()
        try:
            graph = CapturedGraph(stream.handle, network)
        except BackendError:  # launched one by one, as a session would
            yield Network(stream, network, captured=False)
        else:
            stack.callback(graph.close)
            yield Network(stream, graph.replay, captured=True)
        stream.synchronize()


def _input_stages(
    gpu: Gpu, stack: ExitStack, bundle: Bundle, images: list[Rgb]
) -> dict[str, float]:
    """Load, upload and kernels: of resizing detectors the pixels, of others the ready input."""
    batch, geometry = len(images), bundle.geometry
    cubin = kernels_of(bundle, gpu)
    if cubin is not None:
        sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in images]
        resizer = Resizer(gpu, stack, cubin, geometry, sizes)
        load = seconds_of(lambda: resizer.load(list(images)), lambda: None)
        wait = resizer.stream.synchronize
        upload = seconds_of(resizer.upload, wait)
        kernels = seconds_of(resizer.launch, wait)
    else:
        stream = stack.enter_context(gpu.stream())
        views = apply_geometry(geometry, images[0])
        pinned = stack.enter_context(gpu.pinned(batch * views.nbytes))
        device = stack.enter_context(gpu.memory(pinned.nbytes))
        place = pinned[: views.nbytes].view(views.dtype).reshape(views.shape)

        def prepare() -> None:
            for rgb in images:
                place[:] = apply_geometry(geometry, rgb)

        load = seconds_of(prepare, lambda: None)
        upload = seconds_of(lambda: gpu.upload(device, pinned, stream), stream.synchronize)
        kernels = 0.0
    return {
        "load": load / batch / core_count(),
        "upload": upload / batch,
        "kernels": kernels / batch,
    }


def _decode(path: Path) -> Rgb | None:
    try:
        return decode_rgb(read_image_file(path), max_pixels=DEFAULT_MAX_PIXELS)
    except ImageError:
        return None
