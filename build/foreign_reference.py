"""What a graph from elsewhere gives by itself: the reference that its bundle is held to.

The graph runs as its file has it. Pixels are prepared and logits computed in NumPy, apart from the
nodes that `foreign_graph` adds, so that a mistake in those shows as drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.build.foreign import ForeignGraph, check_width
from trtdet.build.foreign_spec import ForeignSpec, GraphOutput, Meaning
from trtdet.engine.bundle import Probes
from trtdet.engine.import_openvino import ov
from trtdet.errors import BackendError, InputError

# Probabilities are kept from 0 and 1 by what float32 can tell from them.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), 1.0 - 2.0**-24

# How far, in units of the last place at 1, an activation may lie from what it is taken for.
_ACTIVATION_ULPS = 64

# How far from 1 the probabilities of all classes may add up to.
_SUM_TOLERANCE = 1e-2

Values = NDArray[np.float64]  # [P, K]


@dataclass(frozen=True)
class Head:
    """Where in the graph the logit comes from."""

    tensor: str  # the output, or what the last activation reads
    values: int  # per image
    meaning: Meaning  # of these values


def run_reference(
    foreign: ForeignGraph, spec: ForeignSpec, images: NDArray[np.uint8]
) -> tuple[Probes, Head]:
    """Score probes (uint8 [P, H, W, 3]) with the graph as it is.

    Where the last operation is a Sigmoid or Softmax, the logits come from what it reads, as a
    probability near 1 has lost them; that both belong together is checked on the probes. Raises
    InputError where the output is not what the spec says, BackendError where OpenVINO fails.
    """
    output, before = _run(foreign, prepare(spec, images))
    has = f"{foreign.path} gives {foreign.output.name}, on generated images"
    check_width(output.shape[1], spec.output, has)
    _check_values(output.astype(np.float64), spec.output, has)
    values, tensor, meaning = output, foreign.output.name, spec.output.meaning
    if before is not None and foreign.before_activation and _explains(before, output):
        values, tensor = before, foreign.before_activation
        meaning = "logit" if meaning == "probability" else "logits"
    head = Head(tensor, values.shape[1], meaning)
    logits = to_logit(values.astype(np.float64), head.meaning, spec.output)
    return Probes(images, logits.astype(np.float32)[:, None]), head


def prepare(spec: ForeignSpec, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Probes uint8 [P, H, W, 3] as the graph takes them: its layout, channels and dtype."""
    x: NDArray[Any] = images
    if spec.scaling is not None:
        mean, std = (np.array(each, np.float32) for each in (spec.scaling.mean, spec.scaling.std))
        x = (images.astype(np.float32) / np.float32(spec.scaling.scale) - mean) / std
    if spec.input.channels == "BGR":
        x = x[..., ::-1]
    if spec.input.layout == "NCHW":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, spec.input.dtype)


def to_logit(values: Values, meaning: Meaning, output: GraphOutput) -> NDArray[np.float64]:
    """One logit per image [P], above 0 for synthetic, from what `meaning` says of the values."""
    if meaning == "logit":
        logit = values[:, 0]
    elif meaning == "probability":
        p = np.clip(values[:, 0], SMALLEST, LARGEST)
        logit = np.log(p) - np.log1p(-p)
    else:
        assert output.index is not None  # a spec of several classes has one
        chosen, others = values[:, output.index], np.delete(values, output.index, axis=1)
        if meaning == "logits":
            logit = chosen - np.logaddexp.reduce(others, axis=1)
        else:
            sums = np.stack([chosen, others.sum(1)])
            logit = np.subtract(*np.log(np.clip(sums, SMALLEST, None)))
    return logit if output.positive == "synthetic" else -logit


def _run(
    foreign: ForeignGraph, inputs: NDArray[Any]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]] | None]:
    """The output and, if there is one, the last activation's input: [P, K] each, one at a time."""
    try:
        core = ov.Core()
        model = core.read_model(foreign.path)
        model.reshape({foreign.input.name: [1, *inputs.shape[1:]]})
        names = [foreign.output.name]
        if foreign.before_activation is not None:
            names += [foreign.before_activation]
            model.add_outputs(names[1])
        # On a CPU with bfloat16 OpenVINO would take it.
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        rows = [compiled(image[None]) for image in inputs]
        found = [np.stack([row[compiled.output(name)].ravel() for row in rows]) for name in names]
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "out of memory"
        raise BackendError(f"OpenVINO cannot run {foreign.path} as it is: {reason}") from error
    return found[0], (found[1] if len(found) > 1 else None)


def _check_values(values: Values, output: GraphOutput, has: str) -> None:
    low, high = values.min(), values.max()
    if not np.isfinite(values).all():
        raise InputError(f"{has}, as {values[~np.isfinite(values)][0]}: no finite number")
    if output.meaning not in ("probability", "probabilities"):
        return
    if low < -1e-3 or high > 1.0 + 1e-3:
        raise InputError(
            f"{has}, from {low:.4g} to {high:.4g}: these are no probabilities, so [output] meaning "
            f'is not "{output.meaning}"; it may be "logit{"s" * (values.shape[1] > 1)}"'
        )
    sums = values.sum(1)
    if values.shape[1] > 1 and np.abs(sums - 1.0).max() > _SUM_TOLERANCE:
        raise InputError(
            f"{has}, and the classes' probabilities add up to {sums[0]:.4g}, not to 1: this is no "
            'softmax, so [output] meaning is not "probabilities"'
        )


def _explains(before: NDArray[np.floating[Any]], output: NDArray[np.floating[Any]]) -> bool:
    """Whether the output is the activation of `before`, value by value: nothing lies between."""
    if before.shape != output.shape:
        return False
    x = before.astype(np.float64)
    if output.shape[1] == 1:
        expected = np.exp(-np.logaddexp(0.0, -x))
    else:
        expected = np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True))
    resolution = np.finfo(output.dtype).eps
    return bool(np.abs(expected - output).max() <= _ACTIVATION_ULPS * resolution)
