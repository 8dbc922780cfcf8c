"""From a bundle's graph to a TensorRT plan, and the plan's place on disk.

The contract:

- `compile_plan` needs TensorRT alone, neither torch nor onnx, so it also runs where images are
  scored. It gives a plan with its key, or raises with what TensorRT said.
- A target like `sm_86` is compiled ahead of time by TensorRT-RTX, on any machine. Such a plan is
  accepted by the builder, and it still compiles its kernels on the GPU that loads it: it is not
  verified execution, and says nothing yet about the scores there.
- The target `current` is compiled for the GPU of this machine, by TensorRT, or by TensorRT-RTX
  where full TensorRT is missing.
- `write_plan` puts `<name>.plan` and then `<name>.json` in place, each whole or not at all. The
  record has the plan's hash: a plan without a record, or with another plan's, is no plan.

Limits: the batch and the image size are fixed. Two writers of one key do not wait for each other.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from trtdet.build.builder import (
    CURRENT,
    MODULES,
    Library,
    current_gpu,
    find_capability,
    load_library,
    logger_of,
)
from trtdet.build.plan_key import PlanKey
from trtdet.engine.atomic import atomic_bytes, atomic_text
from trtdet.engine.digest import sha256_file
from trtdet.errors import BackendError, InputError

# By default TensorRT may round the factors of FP32 products to TF32 (10 bits of mantissa), which
# moves scores. Where a graph says float32, the paper's scores are wanted.
_TF32 = ("tf32", "off")


@dataclass(frozen=True)
class Plan:
    """A compiled plan, and what it was compiled from and for."""

    key: PlanKey
    data: bytes


def compile_plan(
    graph: Path, *, target: str, batch: int, on_progress: Callable[[str], None] | None = None
) -> Plan:
    """Compile an ONNX graph for `target` ("sm_86", ..., or "current") at one fixed batch size.

    The graph takes "image", uint8 or float32 [batch, H, W, 3], and gives "logit", float32
    [batch, 1]. Every tensor keeps the type that the graph gives it. `on_progress` hears one line
    per stage.

    Raises InputError (no such graph, batch or target), BackendError (no TensorRT or no GPU for the
    target, or TensorRT refuses the graph, in its own words).
    """
    if not graph.is_file():
        raise InputError(f"there is no graph {graph}")
    say = on_progress or (lambda _line: None)
    if batch < 1:
        raise InputError(f"no plan has a batch of {batch} images: give 1 or more")
    options = [_TF32]
    if target == CURRENT:
        library = load_library(*MODULES, say=say)
        target, device = current_gpu()
        # Kernels are chosen by timing them on this very GPU, so another model of the same compute
        # capability gets a plan of its own. An ahead-of-time plan never has this option.
        options.append(("compiled_on", device))
        capability = library.trt.ComputeCapability.CURRENT if library.offers else None
    else:
        library = load_library("tensorrt-rtx")
        capability = find_capability(library, target)
    key = PlanKey(
        flavour=library.flavour,
        version=library.trt.__version__,
        target=target,
        graph_sha256=sha256_file(graph),
        batch=batch,
        options=tuple(sorted(options)),
    )
    started = time.monotonic()
    say(f"{target}: {library} compiles {graph.name} for batches of {batch}")
    data = _build(library, graph, target, capability, batch)
    outcome = f"{len(data) / 1e6:.1f} MB in {time.monotonic() - started:.1f} s"
    if library.flavour == "tensorrt-rtx":
        outcome += ", accepted by the builder; it still compiles its kernels on the GPU"
    say(f"{target}: {outcome}")
    return Plan(key, data)


def write_plan(plans_dir: Path, plan: Plan) -> Path:
    """Put a plan and its record into `plans_dir`, in place of older ones; returns the plan's path.

    The record comes last: what it describes is there. Raises InputError when it cannot be written.
    """
    path = plans_dir / plan.key.file_name
    record = {
        "key": plan.key.to_json(),
        "plan_sha256": sha256(plan.data).hexdigest(),
        "size_bytes": len(plan.data),
    }
    try:
        plans_dir.mkdir(parents=True, exist_ok=True)
        with atomic_bytes(path) as file:
            file.write(plan.data)
        with atomic_text(path.with_suffix(".json")) as text:
            text.write(f"{json.dumps(record, indent=2)}\n")
    except OSError as error:
        raise InputError(f"cannot write the plan {path}: {error}") from error
    return path


def _build(library: Library, graph: Path, target: str, capability: Any, batch: int) -> bytes:
    trt, log = library.trt, logger_of(library.trt)
    log.messages.clear()
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise BackendError(f"{library} cannot keep a graph's types: install TensorRT 10 or newer")
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind11: "factory function returned nullptr"
        raise BackendError(f"{library} does not start: {log.last() or error}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # it owns the weights: alive until the plan is built
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BackendError(f"{library} cannot read {graph}: {'; '.join(map(_in_words, errors))}")
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if capability is not None:
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(capability, 0):
            raise BackendError(f"{library} refuses the target {target}: {log.last()}")
    shape = (batch, *_image_shape(trt, network, graph, batch))
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, min=shape, opt=shape, max=shape)
    config.add_optimization_profile(profile)
    with _interrupts_held():
        serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BackendError(f"{library} cannot compile {graph} for {target}: {log.last()}")
    return bytes(serialized)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Raise an interrupt after the block: TensorRT calls Python back inside, and swallows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    held = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def _image_shape(trt: ModuleType, network: Any, graph: Path, batch: int) -> tuple[int, ...]:
    """(H, W, 3) of a graph whose input and output are a bundle's. Raises InputError for another.

    TensorRT itself would take another input, or none of the batch's size, and fail when it scores.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    found = [(tensor.name, tensor.dtype, len(tensor.shape)) for tensor in (*inputs, *outputs)]
    logit = ("logit", trt.DataType.FLOAT, 2)
    # FLOAT: after a resize that does not round.
    images = [("image", dtype, 4) for dtype in (trt.DataType.UINT8, trt.DataType.FLOAT)]
    if found not in [[image, logit] for image in images]:
        names = ", ".join(f"{name} {dtype.name} (rank {rank})" for name, dtype, rank in found)
        raise InputError(
            f"{graph} has {names or 'no tensors'}, not image UINT8 or FLOAT (rank 4) and "
            "logit FLOAT (rank 2): export it with `trtdet build`"
        )
    free, *image = inputs[0].shape
    if free not in (-1, batch) or min(image) < 1:
        raise InputError(
            f"{graph} takes images of shape {tuple(inputs[0].shape)}, which is no batch of {batch} "
            "of one fixed size: export it with `trtdet build`"
        )
    return tuple(image)


def _in_words(error: Any) -> str:
    """A parser's error: "node 'activation' (Reluu): Plugin not found"."""
    node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node() >= 0 else ""
    return node + " ".join(str(error.desc()).split())
