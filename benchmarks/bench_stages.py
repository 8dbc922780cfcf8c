"""What each part of an image's way takes by itself, on one core, and in the running pipeline.

read and decode, geometry, copy (into the slot's memory), compute, write (of the row).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from trtdet.benchmarks.bench_network import Setting, open_setting
from trtdet.engine.backends import TENSORRT, BackendStatus
from trtdet.engine.bundle import Bundle
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.engine.geometry import Pixels, apply_geometry
from trtdet.engine.sink import open_sink
from trtdet.engine.steps import Rgb
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import ImageError, InputError

# In the order of the way. The pipeline's ranges have the same names.
HOST_STAGES = ("decode", "geometry", "copy", "write")

_ROUNDS = 3
_MOST_BYTES = 1 << 29  # of pixels that are kept


@dataclass(frozen=True)
class Material:
    """The images of a measurement, as files and as what each stage hands on."""

    paths: tuple[Path, ...]  # that decode
    rgb: tuple[Rgb, ...]
    views: tuple[Pixels, ...]

    @property
    def megapixels(self) -> float:
        """Of a file, on average."""
        return float(np.mean([each.shape[0] * each.shape[1] for each in self.rgb])) / 1e6

    @property
    def kilobytes(self) -> float:
        """Of a file, on average."""
        return float(np.mean([path.stat().st_size for path in self.paths])) / 1e3


def read_material(paths: Sequence[Path], bundle: Bundle) -> Material:
    """Decode what can be decoded, as many as memory is for. Raises InputError where nothing can."""
    quiet_decoders()
    kept: list[tuple[Path, Rgb, Pixels]] = []
    size = 0
    for path in paths:
        try:
            rgb = decode_rgb(read_image_file(path), max_pixels=DEFAULT_MAX_PIXELS)
            views = apply_geometry(bundle.geometry, rgb)
        except ImageError as error:
            reason = f"{path}: {error}"
            continue
        kept.append((path, rgb, views))
        size += rgb.nbytes + views.nbytes
        if size > _MOST_BYTES:
            break
    if not kept:
        raise InputError(f"none of {len(paths)} images can be scored, for instance {reason}")
    return Material(*zip(*kept, strict=True))


def time_stages(
    backend: BackendStatus,
    bundle: Bundle,
    material: Material,
    seconds: float,
    gpu: GpuOptions | None = None,
) -> dict[str, float]:
    """Seconds per image of each stage on the host, by itself on one core."""

    def decode(index: int) -> None:
        decode_rgb(read_image_file(material.paths[index]), max_pixels=DEFAULT_MAX_PIXELS)

    def geometry(index: int) -> None:
        apply_geometry(bundle.geometry, material.rgb[index])

    count, share = len(material.paths), seconds / len(HOST_STAGES)
    found = {"decode": _seconds_each(decode, count, share)}
    if backend.name != TENSORRT:  # which resizes by itself
        found["geometry"] = _seconds_each(geometry, count, share)
    setting = Setting(bundle.batch, 1)
    with closing(open_setting(backend, bundle, setting, gpu)) as session:

        def copy(index: int) -> None:
            session.put(0, index % session.batch, material.views[index])

        found["copy"] = _seconds_each(copy, count, share)
    with tempfile.TemporaryDirectory() as folder:
        logits = np.zeros(len(bundle.outputs), np.float32)
        with open_sink(str(Path(folder) / "scores.csv"), None, bundle.outputs) as sink:

            def write(index: int) -> None:
                sink.write(material.paths[index].name, logits, None)

            found["write"] = _seconds_each(write, count, share)
    return found


class Heard:
    """Seconds of each part of a running pipeline, from all threads. See `engine.nvtx.listen`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, name: str, seconds: float) -> None:
        with self._lock:
            self.seconds[name] += seconds


def _seconds_each(once: Callable[[int], object], count: int, seconds: float) -> float:
    """Of one call, the median of rounds over the images, after some to warm up."""
    start = time.perf_counter()
    for index in range(min(count, 8)):
        once(index)
    guess = max((time.perf_counter() - start) / min(count, 8), 1e-8)
    calls = max(1, int(seconds / _ROUNDS / guess))
    rounds = []
    for number in range(_ROUNDS):
        start = time.perf_counter()
        for index in range(number * calls, (number + 1) * calls):
            once(index % count)
        rounds.append((time.perf_counter() - start) / calls)
    return median(rounds)
