"""How fast the kernels resize, next to what the GPU's memory can do and what Pillow does.

A copy within the GPU's memory reads and writes every byte once: that is the roof. The kernels'
bytes are counted alike, each byte that a pass has to read or write once, tables included.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from trtdet.benchmarks.gpu_clock import seconds_of
from trtdet.benchmarks.gpu_driver import open_gpu
from trtdet.benchmarks.gpu_kernels import load_cubin
from trtdet.benchmarks.gpu_pictures import drawn, scored_pictures
from trtdet.benchmarks.gpu_resizer import Resizer, traffic_of
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values
from trtdet.benchmarks.gpu_stages import decode_s
from trtdet.engine.cuda import Gpu
from trtdet.engine.geometry import Geometry, apply_geometry
from trtdet.engine.machine import core_count
from trtdet.engine.steps import CenterCrop, CenterSquare, Rgb, ShortSide, Stretch

# (height, width), and how many in a batch: as many as fit into what a slot has page-locked.
INPUTS = {"200 px": ((200, 200), 64), "1 Mpixel": ((866, 1155), 32), "12 Mpixel": ((3000, 4000), 3)}

GEOMETRIES = (
    Geometry.of(Stretch(256, 256, "bilinear")),
    Geometry.of(ShortSide(224, "bicubic"), CenterCrop(224, 224)),
    Geometry.of(CenterSquare(200, 200)),
)

_COPIED_BYTES = 512 << 20
_TIMED_FILES = 1024


def run(bench: Bench) -> None:
    """The copies, then a row for each input and geometry. Raises MissingError without a GPU."""
    with open_gpu() as gpu:
        cubin = load_cubin(gpu)
        bench.row("decode", partial(time_decode, scored_pictures(bench.request)))
        copies = bench.row("copies", partial(time_copies, gpu)) or {}
        for name, (size, batch) in INPUTS.items():
            for geometry in GEOMETRIES:
                measure = partial(time_kernels, gpu, cubin, geometry, size, batch, copies)
                bench.row(f"{name}, {geometry}", measure)


def time_decode(paths: Sequence[Path], found: Values) -> None:
    """What has to come before: files per second on all cores, read and decoded."""
    paths = paths[:_TIMED_FILES]
    found |= {"files": len(paths), "cores": core_count(), "images/s": 1 / decode_s(paths)}


def time_copies(gpu: Gpu, found: Values, size: int = _COPIED_BYTES) -> None:
    """GB/s within the GPU's memory, reads and writes counted, and over the bus."""
    with ExitStack() as stack:
        stream = stack.enter_context(gpu.stream())
        source, target = (stack.enter_context(gpu.memory(size)) for _ in range(2))
        pinned = stack.enter_context(gpu.pinned(size))
        copy = gpu.driver.memcpy_dtod_async
        for name, bytes_moved, once in (
            ("within GB/s", 2 * size, lambda: copy(target, source, size, stream)),
            ("to the GPU GB/s", size, lambda: gpu.upload(source, pinned, stream)),
            ("from the GPU GB/s", size, lambda: gpu.download(pinned, source, stream)),
        ):
            found[name] = bytes_moved / 1e9 / seconds_of(once, stream.synchronize)


def time_kernels(
    gpu: Gpu,
    cubin: bytes,
    geometry: Geometry,
    size: tuple[int, int],
    batch: int,
    copies: Values,
    found: Values,
) -> None:
    """Images per second of the kernels alone, of kernels and upload, and of Pillow on one core."""
    traffic = traffic_of(geometry, size)
    if traffic is None:
        raise MissingError("the host does this: this Pillow resizes as no kernel does")
    images = drawn([size] * batch)
    with ExitStack() as stack:
        resizer = Resizer(gpu, stack, cubin, geometry, [size] * batch)
        resized = resizer.load(list(images))
        wait = resizer.stream.synchronize

        def both() -> None:
            resizer.upload()
            resizer.launch()

        resizer.upload()
        alone = seconds_of(resizer.launch, wait) / batch
        together = seconds_of(both, wait) / batch
        found |= {
            "batch": batch,
            "by the kernels": resized,
            "us per image": 1e6 * alone,
            "images/s": 1 / alone,
            "images/s with the upload": 1 / together,
            "uploaded bytes": resizer.upload_bytes // batch,
            "moved bytes": traffic.moved,
            "GB/s": traffic.moved / 1e9 / alone,
        }
    if "within GB/s" in copies:
        found["of a copy's GB/s"] = found["GB/s"] / copies["within GB/s"]
    if not resized:
        return  # it has that size already: there is nothing that Pillow would do
    found["Pillow, one core, images/s"] = 1 / _pillow_s(geometry, images[0])
    found["times Pillow on one core"] = found["images/s"] / found["Pillow, one core, images/s"]


def _pillow_s(geometry: Geometry, rgb: Rgb) -> float:
    return seconds_of(lambda: apply_geometry(geometry, rgb), lambda: None)
