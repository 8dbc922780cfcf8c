"""A bundle's plan and kernels for this GPU: compiled, loaded by themselves, or as a session."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from trtdet.benchmarks.gpu_section import MissingError, Values
from trtdet.engine.backends import Session
from trtdet.engine.bundle import GRAPH, INPUT_NAME, OUTPUT_NAME, Bundle
from trtdet.engine.cuda import Gpu
from trtdet.engine.kernels import find_kernels, write_kernels
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.plans import WantedPlan, find_plan, stored_plans
from trtdet.engine.resample import gpu_recipe
from trtdet.engine.tensorrt import GpuOptions
from trtdet.engine.tensorrt_library import load_library
from trtdet.errors import BackendError, PlanMissError


def need_engine() -> None:
    """Raise MissingError, with the reason, where no plan can run."""
    try:
        load_library("tensorrt", "tensorrt-rtx", lean=True)
        Gpu().close()
    except BackendError as error:
        raise MissingError(str(error)) from error


def compile_here(bundle: Bundle, batch: int) -> None:
    """Compile the plan that this GPU lacks; nothing where it is there. Raises BackendError."""
    from trtdet.build.builder import CURRENT
    from trtdet.build.compile import compile_bundle

    compile_bundle(bundle, CURRENT, batch, on_progress=_say)


def ensure_compiled(bundle: Bundle, batch: int, found: Values) -> None:
    """The plan for a batch, and the kernels, with what they took. Raises BackendError.

    Without a compiler for the kernels the images are resized on the host, and that is noted.
    """
    started = time.monotonic()
    compile_here(bundle, batch)
    found["compile s"] = time.monotonic() - started
    found |= _largest_plan(bundle)
    if gpu_recipe(bundle.geometry) is None:
        return
    gpu = Gpu()
    gpu.close()
    if find_kernels(bundle.path, gpu.target, on_line=_say) is None:
        try:
            write_kernels(bundle.path, gpu.target)
        except BackendError as error:
            found["resized on the host"] = str(error)


def drop_plan(bundle: Bundle, batch: int) -> None:
    """Remove the plan for a batch: of a large network at every batch they would fill a disk."""
    for plan in list(stored_plans(bundle.plans)):
        if plan.key.batch != batch * bundle.geometry.views:
            continue
        for path in (plan.path, plan.path.with_suffix(".json")):
            path.unlink(missing_ok=True)


def open_compiled(bundle: Bundle, batch: int) -> tuple[Session, list[str]]:
    """A session of the engine's own kind, and what it said on the way. Close it."""
    said: list[str] = []
    given = GpuOptions(on_miss=_on_miss, say=said.append)
    return open_tensorrt(bundle, batch=batch, options=given), said


@contextmanager
def loaded_plan(bundle: Bundle, batch: int) -> Iterator[LoadedPlan]:
    """The plan that a session would run, and its GPU current in this thread.

    Raises BackendError; MissingError for tiles, which are no batch.
    """
    if bundle.tiling is not None:
        raise MissingError("it sees native resolution, tile by tile: there are no batches")
    library = load_library("tensorrt", "tensorrt-rtx", lean=True)
    gpu = Gpu()
    wanted = WantedPlan(
        flavour=library.flavour,
        version=library.trt.__version__,
        target=gpu.target,
        graph_sha256=bundle.hashes[GRAPH],
        batch=batch * bundle.geometry.views,
        views=bundle.geometry.views,
        device=gpu.name,
        lean=library.lean,
    )
    try:
        try:
            data = find_plan(bundle.plans, wanted).data
        except PlanMissError:
            compile_here(bundle, batch)
            data = find_plan(bundle.plans, wanted).data
        plan = LoadedPlan(library, gpu, data, (INPUT_NAME, OUTPUT_NAME))
    except BaseException:
        gpu.close()
        raise
    with closing(plan), gpu.current():
        yield plan


def kernels_of(bundle: Bundle, gpu: Gpu) -> bytes | None:
    """The compiled kernels, where the bundle's images are resized on the GPU."""
    if gpu_recipe(bundle.geometry) is None:
        return None
    return find_kernels(bundle.path, gpu.target, on_line=_say)


def _on_miss(bundle: Bundle, batch: int | None, _device: int) -> None:
    compile_here(bundle, batch or bundle.batch)


def _largest_plan(bundle: Bundle) -> Values:
    sizes = [plan.path.stat().st_size for plan in stored_plans(bundle.plans)]
    return {"plan MB": max(sizes) / 1e6} if sizes else {}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
