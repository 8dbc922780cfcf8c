"""Does a plan load and run on this GPU at all, of which flavour, and for which target?

TensorRT-RTX compiles its kernels on the GPU that loads a plan, and its support matrix does not name
every GPU. So each kind of plan is tried, with the driver alone, and what was said is kept word for
word.
"""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.gpu_libcuda import Cuda
from trtdet.benchmarks.gpu_micro import (
    KINDS,
    TOLERANCES,
    Floats,
    Kind,
    build_micro,
    micro_image,
    micro_logits,
)
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values, WrongError
from trtdet.build.builder import offered_targets
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.tensorrt_library import Library, load_library, logger_of
from trtdet.errors import BackendError

_RUNS = 20


def run(bench: Bench) -> None:
    """A row for each flavour, target and precision."""
    try:
        Cuda().close()
        no_gpu = ""
    except BackendError as error:
        no_gpu = str(error)
    for flavour in ("tensorrt-rtx", "tensorrt"):
        try:
            library = load_library(flavour)
        except BackendError as error:
            bench.row(flavour, partial(_missing, str(error)))
            continue
        for target, capability, hardware in targets_of(library):
            for kind in KINDS:
                trial = partial(try_plan, library, kind, capability, hardware, no_gpu)
                bench.row(f"{flavour} {target} {kind}", trial)


def targets_of(library: Library) -> list[tuple[str, Any, Any]]:
    """(name, `ComputeCapability`, `HardwareCompatibilityLevel`) to try; None: left alone."""
    trt, offered = library.trt, offered_targets(library)
    levels = getattr(getattr(trt, "HardwareCompatibilityLevel", None), "__members__", {})
    ampere = levels.get("AMPERE_PLUS")
    if not offered:  # full TensorRT compiles for the GPU that is there
        found = [("current", None, None)]
        return [*found, ("current, AMPERE_PLUS", None, ampere)] if ampere is not None else found
    found = [("portable", None, None), ("sm_80", offered.get("sm_80"), None)]
    if ampere is not None:
        found.append(("sm_80, AMPERE_PLUS", offered.get("sm_80"), ampere))
    found.append(("current", trt.ComputeCapability.CURRENT, None))
    others = [name for name in offered if name != "sm_80"]
    return found + [(name, offered[name], None) for name in others]


def try_plan(
    library: Library, kind: Kind, capability: Any, hardware: Any, no_gpu: str, found: Values
) -> None:
    """Build, load and run one plan. `no_gpu` says why there is nothing to run it on."""
    started = time.perf_counter()
    try:
        plan, warned = build_micro(library, kind, capability, hardware)
    except BackendError as error:
        if no_gpu:  # for the GPU that is there nothing can be built where there is none
            raise MissingError(str(error)) from error
        raise
    found |= {"build s": time.perf_counter() - started, "plan bytes": len(plan)}
    if warned:
        found["builder said"] = warned
    if no_gpu:
        raise MissingError(f"the builder accepted it, and there is nothing to run it on: {no_gpu}")
    found["validity"] = validity(library, plan)
    expected = micro_logits()
    with closing(Cuda()) as cuda:
        found["GPU"] = f"{cuda.name} {cuda.target}"
        logits = run_plan(library, cuda, plan, micro_image(), expected.shape, found)
    found["largest error"] = float(np.abs(logits - expected).max() / np.abs(expected).max())
    if not found["largest error"] <= TOLERANCES[kind]:
        raise WrongError(f"it runs, and gives {logits.tolist()}, not {expected.tolist()}")


def validity(library: Library, plan: bytes) -> str:
    """What TensorRT-RTX says of a plan before it is loaded."""
    trt = library.trt
    if not hasattr(trt.Runtime, "get_engine_validity"):
        return "this TensorRT cannot be asked"
    try:
        verdict, diagnostics = trt.Runtime(logger_of(trt)).get_engine_validity(plan)
    except (TypeError, RuntimeError) as error:
        return str(error)
    return f"{verdict}, diagnostics {diagnostics}"


def run_plan(
    library: Library,
    cuda: Cuda,
    plan: bytes,
    image: Floats | NDArray[np.uint8],
    shape: tuple[int, ...],
    found: Values,
) -> Floats:
    """Load a plan from `image` to logits float32 of a shape, and run it a few times.

    Raises BackendError that says which step failed, in TensorRT's own words.
    """
    trt, log = library.trt, logger_of(library.trt)
    log.messages.clear()
    started = time.perf_counter()
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"it does not load: {log.last() or 'no reason given'}")
    loaded = time.perf_counter()
    found["load s"] = loaded - started
    context = engine.create_execution_context()
    if context is None:
        raise BackendError(f"it gets no execution context: {log.last() or 'no reason given'}")
    size = 4 * int(np.prod(shape))
    with cuda.memory(image.nbytes) as source, cuda.memory(size) as target:
        cuda.upload(source, image)
        context.set_input_shape(INPUT_NAME, image.shape)
        context.set_tensor_address(INPUT_NAME, source)
        context.set_tensor_address(OUTPUT_NAME, target)

        def once() -> None:
            if not context.execute_async_v3(cuda.stream):
                raise BackendError(f"it does not run: {log.last() or 'no reason given'}")
            cuda.wait()

        made = time.perf_counter()
        once()
        first = time.perf_counter()
        for _ in range(_RUNS):
            once()
        ended = time.perf_counter()
        logits = cuda.download(target, shape)
    found |= {
        "context s": made - loaded,
        "first run s": first - made,
        "run us": 1e6 * (ended - first) / _RUNS,
    }
    if log.last():
        found["runtime said"] = log.last()
    return logits


def _missing(reason: str, _found: Values) -> None:
    raise MissingError(reason)
