"""What is to be compiled for a target: the library, the plan's key, and what to try instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtdet.build.builder import CURRENT, current_gpu, find_capability, offered_targets
from trtdet.build.plan_builder import PlanOrder, library_options
from trtdet.build.plan_settings import Batch, PlanSettings
from trtdet.build.profiles import NativeSize, profile_options
from trtdet.build.progress_monitor import OnLine
from trtdet.engine.plan_key import COMPILED_ON, PlanKey
from trtdet.engine.tensorrt_library import MODULES, Flavour, Library, load_library
from trtdet.errors import BackendError, InputError

# The option of a plan of TensorRT-RTX for every GPU: it was compiled for none in particular.
PORTABLE = ("portable", "on")


@dataclass(frozen=True)
class Wish:
    """What somebody wants compiled, and for what."""

    graph: Path
    graph_sha256: str
    target: str
    batch: Batch  # of the graph's input
    native: NativeSize | None
    settings: PlanSettings
    flavour: Flavour | None = None
    device: int = 0  # with the target `current`: which GPU


def make_orders(wish: Wish, say: OnLine) -> list[PlanOrder]:
    """The order for a wish; a second one, where there is one, for when the first cannot be built.

    That is a plan of TensorRT-RTX for all GPUs: it compiles for the generations that it offers, and
    such a plan runs on others, too. Raises InputError or BackendError for what cannot be compiled.
    """
    if wish.target == CURRENT:
        return _orders_here(wish, say)
    if wish.flavour == "tensorrt":
        raise InputError(
            f"only TensorRT-RTX compiles ahead of time, for {wish.target}: not {wish.flavour}"
        )
    library = load_library("tensorrt-rtx")
    return [_order(wish, library, wish.target, find_capability(library, wish.target))]


def _orders_here(wish: Wish, say: OnLine) -> list[PlanOrder]:
    library = load_library(*((wish.flavour,) if wish.flavour else MODULES), say=say)
    target, device = current_gpu(wish.device)
    # Kernels are chosen by timing them on this very GPU, so another model of the same compute
    # capability gets a plan of its own. An ahead-of-time plan never has this option.
    timed = (COMPILED_ON, device)
    if library.flavour != "tensorrt-rtx":
        return [_order(wish, library, target, None, timed)]
    portable = _order(wish, library, target, None, timed, PORTABLE)
    if target not in offered_targets(library):
        say(f"{library} does not compile for {target} alone: a plan for all GPUs is compiled")
        return [portable]
    return [_order(wish, library, target, library.trt.ComputeCapability.CURRENT, timed), portable]


def _order(
    wish: Wish, library: Library, target: str, capability: Any, *options: tuple[str, str]
) -> PlanOrder:
    batch, settings = wish.batch, wish.settings
    _check_library(library, settings)
    shapes = profile_options(batch, wish.native)
    key = PlanKey(
        flavour=library.flavour,
        version=library.trt.__version__,
        target=target,
        graph_sha256=wish.graph_sha256,
        batch=batch if isinstance(batch, int) else batch[1],
        options=tuple(sorted([*settings.options(), *library_options(library), *shapes, *options])),
    )
    return PlanOrder(
        library, wish.graph, key, batch, wish.native, settings, capability, wish.device
    )


def _check_library(library: Library, settings: PlanSettings) -> None:
    """Raise unless the library can do what it is asked for, before anything is compiled."""
    trt = library.trt
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise BackendError(f"{library} cannot keep a graph's types: install TensorRT 10 or newer")
    # TensorRT-RTX has the flag, and no lean runtime to go with it.
    has_lean = library.flavour == "tensorrt" and hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE")
    if settings.version_compatible and not has_lean:
        raise InputError(
            f"{library} makes no version-compatible plans: leave --version-compatible out, or "
            "compile with full TensorRT (pip install 'trtdet[tensorrt]'; JetPack has it)"
        )
