"""The engine's CUDA kernels against Pillow, byte by byte, on drawn images and on real ones.

`python -m trtdet.benchmarks.gpu_kernels` is a small part of it, to be run under compute-sanitizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import PIL

from trtdet.benchmarks.gpu_driver import open_gpu
from trtdet.benchmarks.gpu_pictures import drawn, find_pictures
from trtdet.benchmarks.gpu_resizer import Resizer
from trtdet.benchmarks.gpu_section import Bench, MissingError, Request, Values, WrongError
from trtdet.engine.bundle import open_bundle
from trtdet.engine.cubin import compile_cubin
from trtdet.engine.cuda import Gpu
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, read_image_file
from trtdet.engine.geometry import Geometry, apply_geometry
from trtdet.engine.resample import gpu_recipe
from trtdet.engine.steps import CenterCrop, CenterSquare, Rgb, ShortSide, Stretch, TenCrop
from trtdet.engine.store import RECORD
from trtdet.errors import BackendError, BundleError, ImageError

Named = tuple[str, Rgb]

GEOMETRIES = (
    Geometry.of(Stretch(256, 256, "bilinear")),
    Geometry.of(Stretch(256, 256, "bilinear"), CenterCrop(224, 224)),
    Geometry.of(Stretch(299, 331, "lanczos")),
    Geometry.of(ShortSide(224, "bicubic"), CenterCrop(224, 224)),
    Geometry.of(ShortSide(256, "bilinear"), CenterCrop(288, 224, "down")),  # a black rim
    Geometry.of(ShortSide(256, "bilinear"), TenCrop(224, 224)),
    Geometry.of(CenterSquare(200, 200)),
)

SIZES = (
    (1, 1), (1, 2), (2, 1), (3, 5), (7, 300), (300, 7), (31, 33), (1, 2000), (2000, 1),
    (199, 201), (200, 200), (224, 224), (255, 257), (256, 256), (256, 300), (300, 256), (257, 511),
    (400, 500), (500, 400), (512, 512), (480, 640), (866, 1155), (1080, 1920), (1920, 1080),
    (50, 3000), (3000, 4000),
)  # fmt: skip
_RANDOM_SIZES, _LONGEST = 70, 1200

_BATCH = 8


def run(bench: Bench) -> None:
    """A row for each geometry and source. Raises MissingError without pycuda, GPU or compiler."""
    with open_gpu() as gpu:
        cubin = load_cubin(gpu)
        geometries = list(dict.fromkeys((*GEOMETRIES, *_geometries_of(bench.request))))
        tasks: list[tuple[str, Geometry, Callable[[], Iterable[Named]], int]] = []
        sizes = all_sizes()
        for each in geometries:
            tasks.append((f"drawn, {each}", each, partial(_drawn, sizes), len(sizes)))
        if bench.request.images is not None:
            paths = find_pictures(bench.request.images)
            for each in geometries:
                read = partial(_read, paths)
                tasks.append((f"{bench.request.images}, {each}", each, read, len(paths)))
        for number, (name, geometry, images, count) in enumerate(tasks):
            end = time.monotonic() + bench.remaining_s / (len(tasks) - number)
            measure = partial(compare_all, gpu, cubin, geometry, images, count, end)
            bench.row(name, measure)


def load_cubin(gpu: Gpu) -> bytes:
    """The kernels for this GPU. Raises MissingError without a compiler."""
    try:
        return compile_cubin(gpu.target)
    except BackendError as error:
        raise MissingError(str(error)) from error


def all_sizes() -> list[tuple[int, int]]:
    """(height, width) of the drawn images."""
    rng = np.random.default_rng(11)
    pairs = rng.integers(1, _LONGEST, (_RANDOM_SIZES, 2))
    return [*SIZES, *((int(height), int(width)) for height, width in pairs)]


def compare_all(
    gpu: Gpu,
    cubin: bytes,
    geometry: Geometry,
    images: Callable[[], Iterable[Named]],
    count: int,
    end: float,
    found: Values,
) -> None:
    """How many bytes differ from Pillow's; until `end` of `time.monotonic`, one batch at least."""
    if gpu_recipe(geometry) is None:
        raise MissingError(f"Pillow {PIL.__version__} resizes as no kernel does: the host does it")
    found |= {"images": 0, "of": count, "by the kernels": 0, "refused": 0, "bytes": 0}
    found |= {"bytes that differ": 0, "largest difference": 0}
    for batch in _batches(images()):
        _compare(gpu, cubin, geometry, batch, found)
        if time.monotonic() > end:
            break
    if found["bytes that differ"]:
        raise WrongError(f"{found['bytes that differ']} bytes are not Pillow's")
    if not found["by the kernels"]:
        raise WrongError("the kernels did nothing: the host resized every image")


def _compare(gpu: Gpu, cubin: bytes, geometry: Geometry, batch: list[Named], found: Values) -> None:
    taken, expected = [], []
    for name, rgb in batch:
        try:
            expected.append(apply_geometry(geometry, rgb))
        except ImageError:  # the engine refuses it as well
            found["refused"] += 1
            continue
        taken.append((name, rgb))
    if not taken:
        return
    with ExitStack() as stack:
        sizes = [(rgb.shape[0], rgb.shape[1]) for _name, rgb in taken]
        resizer = Resizer(gpu, stack, cubin, geometry, sizes)
        found["by the kernels"] += resizer.load([rgb for _name, rgb in taken])
        resizer.poison()
        resizer.upload()
        resizer.launch()
        got = resizer.download()
    for (name, rgb), mine, theirs in zip(taken, got, expected, strict=True):
        found["images"] += 1
        found["bytes"] += theirs.size
        differing = mine != theirs
        if differing.any():
            found["bytes that differ"] += int(differing.sum())
            largest = int(np.abs(mine.astype(np.int16) - theirs).max())
            found["largest difference"] = max(found["largest difference"], largest)
            first = tuple(map(int, np.argwhere(differing)[0]))
            found.setdefault("first", f"{name} {rgb.shape[0]}x{rgb.shape[1]} at {first}")


def _drawn(sizes: list[tuple[int, int]]) -> Iterator[Named]:
    for number, rgb in enumerate(drawn(sizes)):
        yield f"drawn {number}", rgb


def _read(paths: list[Path]) -> Iterator[Named]:
    """Decoded files; what cannot be decoded is not these kernels' matter."""
    for path in paths:
        try:
            rgb = decode_rgb(read_image_file(path), max_pixels=DEFAULT_MAX_PIXELS)
        except ImageError:
            continue
        yield path.name, rgb


def _batches(images: Iterable[Named]) -> Iterator[list[Named]]:
    rest = iter(images)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _geometries_of(request: Request) -> list[Geometry]:
    """Of the bundles that will be measured, those that the kernels do."""
    found = []
    copies = (each.parent for each in request.work.glob(f"bundles/*/{RECORD}"))
    for folder in (*map(Path, request.bundles), *copies):
        with suppress(BundleError):  # the section `bundles` tells
            found.append(open_bundle(folder).geometry)
    return [geometry for geometry in found if gpu_recipe(geometry) is not None]


def check_few() -> None:
    """What fits under compute-sanitizer, which slows a kernel down a hundred times."""
    found: Values = {}
    with open_gpu() as gpu:
        cubin = load_cubin(gpu)
        for geometry in GEOMETRIES:
            sizes = [(1, 1), (61, 83), (300, 7), (256, 256), (400, 500)]
            images = partial(_drawn, sizes)
            compare_all(gpu, cubin, geometry, images, len(sizes), float("inf"), found)


if __name__ == "__main__":
    check_few()
