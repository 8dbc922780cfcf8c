"""8 bits written into the graph: a QuantizeLinear and a DequantizeLinear around what is rounded.

Signed and symmetric, as TensorRT wants it: no zero point but 0. Activations have one step per
tensor, weights one per output channel. A step is a number of float16, so that the graph means the
same whether the rest of it is float32 or float16; the weights are rounded with that very step.
Biases stay in floating point, and nothing stands between a convolution and its ReLU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtdet.calibration.sites import Site

LEVELS = 127  # -127 ... 127; -128 is left out, for symmetry

# The smallest number of float16. Weights that are smaller in a whole channel round to 0.
SMALLEST_STEP = 2.0**-24
LARGEST_STEP = 65504.0
LARGEST_LIMIT = LEVELS * LARGEST_STEP

ZERO = "int8_zero"


def quantize_graph(
    graph: ModelProto, sites: Collection[Site], limits: Mapping[str, float]
) -> ModelProto:
    """A copy of `graph` that computes in 8 bits at `sites`.

    `limits` gives for each tensor of a site the magnitude that the largest level stands for.
    """
    at = {(site.output, site.tensor): site for site in sites}
    weights = {site.weight: site.axis for site in sites if site.weight}
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = [numpy_helper.from_array(np.array(0, np.int8), ZERO)]
    rounded: set[str] = set()
    for node in graph.graph.node:
        changed = NodeProto()
        changed.CopyFrom(node)
        for place, name in enumerate(node.input):
            site = at.get((node.output[0], name))
            if site is not None:
                if name not in rounded:
                    rounded.add(name)
                    nodes += _around(name)
                    constants.append(_steps(step(limits[name]), f"{name}_step"))
                changed.input[place] = f"{name}_rounded"
                if site.weight:
                    changed.input[1] = f"{site.weight}_rounded"
        nodes.append(changed)
    used = {name for node in nodes for name in node.input}
    dequantize = []
    for weight in graph.graph.initializer:
        axis = weights.get(weight.name)
        if axis is not None:
            node, tensors = _rounded_weight(weight, axis)
            dequantize.append(node)
            constants += tensors
        if axis is None or weight.name in used:
            constants.append(weight)
    whole = helper.make_graph(
        [*dequantize, *nodes], graph.graph.name, graph.graph.input, graph.graph.output, constants
    )
    return helper.make_model(
        whole,
        ir_version=graph.ir_version,
        opset_imports=graph.opset_import,
        producer_name=graph.producer_name,
        producer_version=graph.producer_version,
    )


def count_layers(graph: ModelProto) -> int:
    """How many layers of a graph have weights in 8 bits."""
    constants = {each.name for each in graph.graph.initializer}
    return sum(
        node.op_type == "DequantizeLinear" and node.input[0] in constants
        for node in graph.graph.node
    )


def step(limit: float) -> float:
    """The distance of two levels for values up to `limit`: of float16, never too small."""
    exact = max(limit / LEVELS, SMALLEST_STEP)
    if exact > LARGEST_STEP:
        raise ValueError(f"values up to {limit:g} are beyond what 8 bits and float16 can hold")
    nearest = np.float16(exact)
    if float(nearest) < exact:
        nearest = np.nextafter(nearest, np.float16(np.inf))
    return float(nearest)


def _around(name: str) -> list[NodeProto]:
    scale = f"{name}_step"
    return [
        helper.make_node("QuantizeLinear", [name, scale, ZERO], [f"{name}_int8"], f"{name}_q"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_int8", scale, ZERO], [f"{name}_rounded"], f"{name}_dq"
        ),
    ]


def _rounded_weight(weight: TensorProto, axis: int) -> tuple[NodeProto, list[TensorProto]]:
    values = numpy_helper.to_array(weight)
    others = tuple(each for each in range(values.ndim) if each != axis)
    steps = np.array([step(float(each)) for each in np.abs(values).max(axis=others)], np.float32)
    along = steps.reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    levels = np.clip(np.rint(values / along), -LEVELS, LEVELS).astype(np.int8)
    name = weight.name
    node = helper.make_node(
        "DequantizeLinear",
        [f"{name}_int8", f"{name}_step"],
        [f"{name}_rounded"],
        f"{name}_dq",
        axis=axis,
    )
    return node, [
        numpy_helper.from_array(levels, f"{name}_int8"),
        _steps(steps, f"{name}_step"),
    ]


def _steps(values: float | NDArray[np.float32], name: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)
