"""One run of TensorRT's builder: a graph and an order go in, the bytes of a plan come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtdet.build.builder import on_device
from trtdet.build.plan_settings import Batch, PlanSettings
from trtdet.build.profiles import NativeSize, input_shapes
from trtdet.build.progress_monitor import OnLine, Progress, monitor_of
from trtdet.build.timing_cache import attach_timing_cache, keep_timing_cache, timing_cache_path
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.tensorrt_library import Library, logger_of
from trtdet.errors import BackendError

# TensorRT-RTX may else allocate memory while a plan runs, which no CUDA graph can hold.
# https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/release-notes-1/1.2.html
_USER_ALLOCATION = ("user_allocation", "required")


@dataclass(frozen=True)
class PlanOrder:
    """What is to be compiled: all that is known before the builder starts."""

    tensorrt: Library
    graph: Path
    key: PlanKey
    batch: Batch
    native: NativeSize | None
    settings: PlanSettings
    capability: Any  # trt.ComputeCapability; None: full TensorRT, or RTX's plan for all GPUs
    device: int = 0  # the GPU that is built for, where it is one of this machine


def build_plan(order: PlanOrder, progress: Progress, tell: OnLine) -> bytes:
    """Build the plan; `tell` hears what a person would want to know.

    Raises InputError for a graph that is not a bundle's, BackendError with what TensorRT said.
    """
    with on_device(order.device):
        return _build(order, progress, tell)


def library_options(library: Library) -> list[tuple[str, str]]:
    """The part of a plan's key that every plan of a library has."""
    return [_USER_ALLOCATION] if _requires_user_allocation(library) else []


def _build(order: PlanOrder, progress: Progress, tell: OnLine) -> bytes:
    library, trt, log = order.tensorrt, order.tensorrt.trt, logger_of(order.tensorrt.trt)
    log.messages.clear()
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind11: "factory function returned nullptr"
        raise BackendError(f"{library} does not start: {log.last() or error}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # it owns the weights: alive until the plan is built
    if not parser.parse_from_file(str(order.graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(map(_in_words, errors))
        raise BackendError(f"{library} cannot read {order.graph}: {reasons}")
    config = builder.create_builder_config()
    _configure(order, config)
    profile = builder.create_optimization_profile()
    shapes = input_shapes(trt, network, order.graph, order.batch, order.native)
    for name, (least, best, most) in shapes.items():
        profile.set_shape(name, min=least, opt=best, max=most)
    config.add_optimization_profile(profile)
    if (monitor := monitor_of(trt, progress)) is not None:
        config.progress_monitor = monitor
    cache = timing_cache_path(order.key) if order.settings.timing_cache else None
    if cache is not None and not attach_timing_cache(config, cache, tell):
        cache = None
    log.messages.clear()  # what a timing cache was warned of is not why a build fails
    serialized = builder.build_serialized_network(network, config)
    if progress.failure is not None:
        raise progress.failure
    if serialized is None:
        target = order.key.target
        raise BackendError(f"{library} cannot compile {order.graph} for {target}: {log.last()}")
    if cache is not None:
        keep_timing_cache(config, cache, tell)
    return bytes(serialized)


def _configure(order: PlanOrder, config: Any) -> None:
    """Tell the builder what the plan's key says. Raises BackendError for a target it refuses."""
    trt, settings = order.tensorrt.trt, order.settings
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if _requires_user_allocation(order.tensorrt):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    if order.capability is not None:
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(order.capability, 0):
            reason = logger_of(trt).last()
            raise BackendError(f"{order.tensorrt} refuses the target {order.key.target}: {reason}")


def _requires_user_allocation(library: Library) -> bool:
    return hasattr(library.trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def _in_words(error: Any) -> str:
    """A parser's error: "node 'activation' (Reluu): Plugin not found"."""
    node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node() >= 0 else ""
    return node + " ".join(str(error.desc()).split())
