"""From a bundle's graph to a TensorRT plan, and the plan's place on disk.

The contract:

- It needs TensorRT alone, neither torch nor onnx, so it also runs where images are scored.
- `compile_plan` gives a plan with its key, or raises with what TensorRT said. `compile_bundle` puts
  it where `trtdet.engine.plans` finds it, once: a plan of the very key that is there already is
  taken, and of two processes that want it one compiles while the other waits.
- A target like `sm_86` is compiled ahead of time by TensorRT-RTX, on any machine. Such a plan is
  accepted by the builder, and it still compiles its kernels on the GPU that loads it: it is not
  verified execution, and says nothing yet about the scores there.
- The target `current` is compiled for a GPU of this machine, by TensorRT, or by TensorRT-RTX
  where full TensorRT is missing; where that cannot compile for this GPU alone, for all GPUs.
- Interrupted or killed, it leaves no half plan and no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trtdet.build.builder import CURRENT
from trtdet.build.plan_builder import PlanOrder, build_plan
from trtdet.build.plan_order import Wish, make_orders
from trtdet.build.plan_settings import Batch, PlanSettings
from trtdet.build.profiles import NativeSize, check_batch
from trtdet.build.progress_monitor import (
    OnLine,
    OnPhase,
    Progress,
    lines_of,
    run_cancellable,
)
from trtdet.engine.digest import sha256_file
from trtdet.engine.lock import locked
from trtdet.engine.plans import Plan, stored_plan, writable_folder, write_plan
from trtdet.engine.store import store_folder
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import BackendError, InputError

if TYPE_CHECKING:
    from trtdet.engine.bundle import Bundle

T = TypeVar("T")

_GRAPH = "model.onnx"  # as in `trtdet.engine.bundle`, which needs OpenCV


def compile_plan(
    graph: Path,
    *,
    target: str,
    batch: Batch,
    native: NativeSize | None = None,
    settings: PlanSettings | None = None,
    flavour: Flavour | None = None,
    device: int = 0,
    on_progress: OnLine | None = None,
    on_phase: OnPhase | None = None,
) -> Plan:
    """Compile an ONNX graph for `target` ("sm_86", ..., or "current").

    The graph takes "image", uint8 or float32 [batch, H, W, 3], and gives "logit", float32
    [batch, K]; with `native` also "rows", "columns" and "carry", and "pooled". Every tensor keeps
    the type that the graph gives it. `on_progress` hears one line per stage, `on_phase` what the
    builder does.

    Raises InputError (no such graph, batch or target), BackendError (no TensorRT or no GPU for the
    target, or TensorRT refuses the graph, in its own words), KeyboardInterrupt soon after Ctrl-C.
    """
    if not graph.is_file():
        raise InputError(f"there is no graph {graph}")
    say = on_progress or (lambda _line: None)
    check_batch(batch, native)
    settings = settings or PlanSettings()
    wish = Wish(graph, sha256_file(graph), target, batch, native, settings, flavour, device)
    return _first(wish, lambda order: _compile(order, say, on_phase), say)


def compile_bundle(
    bundle: Bundle,
    target: str,
    batch: Batch | None = None,
    *,
    settings: PlanSettings | None = None,
    flavour: Flavour | None = None,
    device: int = 0,
    force: bool = False,
    on_progress: OnLine | None = None,
    on_phase: OnPhase | None = None,
) -> Path:
    """Compile a bundle's graph into its plans, where no plan of the same key is; the plan's path.

    `batch` counts images, by default it is the bundle's own. With `force` a plan that is there is
    compiled again. Raises what `compile_plan` and `write_plan` raise.
    """
    say = on_progress or (lambda _line: None)
    native, sha256 = NativeSize.of(bundle), bundle.hashes[_GRAPH]
    images = bundle.batch if batch is None else batch
    check_batch(images, native)
    rows = _times(images, bundle.geometry.views)
    settings = settings or PlanSettings()
    wish = Wish(bundle.graph, sha256, target, rows, native, settings, flavour, device)
    folder = writable_folder(bundle.plans, sha256)

    def make(order: PlanOrder) -> Path:
        waiting = f"{order.key.target}: another process is compiling this plan: waiting"
        with alone(f"{order.key.file_name}.lock", lambda: say(waiting)):
            path = None if force else stored_plan(bundle.plans, order.key)
            if path is not None:
                say(f"{order.key.target}: {path.name} is there already")
                return path
            return write_plan(folder, _compile(order, say, on_phase))

    return _first(wish, make, say)


@contextmanager
def alone(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """One process holds the store's lock `name`, the others wait.

    Raises InputError for a store that is closed.
    """
    lock = store_folder() / "locks" / name
    with ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock, on_wait))
        except OSError as error:
            raise InputError(
                f"cannot write the store {store_folder()} ({error.strerror or error}): set "
                "TRTDET_HOME to a folder that can be written"
            ) from error
        yield


def _first(wish: Wish, make: Callable[[PlanOrder], T], say: OnLine) -> T:
    """What `make` makes of the first of a wish's orders that can be built."""
    try:
        orders = make_orders(wish, say)
        for order in orders[:-1]:
            try:
                return make(order)
            except BackendError as error:
                say(f"{error}. Instead a plan for all GPUs is compiled")
        return make(orders[-1])
    except BackendError as error:
        if wish.target != CURRENT:
            raise
        raise BackendError(f"{error}. To score on the CPU: `--backend openvino`") from error


def _compile(order: PlanOrder, say: OnLine, on_phase: OnPhase | None) -> Plan:
    target, library = order.key.target, order.tensorrt

    def tell(line: str) -> None:
        say(f"{target}: {line}")

    progress = Progress(on_phase or lines_of(tell))
    started = time.monotonic()
    tell(f"{library} compiles {order.graph.name} for {_size(order)}")
    data = run_cancellable(lambda: build_plan(order, progress, tell), progress, tell)
    outcome = f"{len(data) / 1e6:.1f} MB in {time.monotonic() - started:.1f} s"
    if library.flavour == "tensorrt-rtx":
        outcome += ", accepted by the builder; it still compiles its kernels on the GPU"
    tell(outcome)
    return Plan(order.key, data)


def _times(batch: Batch, views: int) -> Batch:
    """The batch of the graph's input: images times views."""
    if isinstance(batch, int):
        return batch * views
    least, best, most = batch
    return least * views, best * views, most * views


def _size(order: PlanOrder) -> str:
    if order.native is not None:
        return f"tiles of up to {order.native.tile} pixels"
    if isinstance(order.batch, int):
        return f"batches of {order.batch}"
    least, best, most = order.batch
    return f"batches of {least} to {most}, the quickest {best}"
