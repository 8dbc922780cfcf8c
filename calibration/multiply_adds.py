"""How much work a graph is: the multiply-adds of its convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from onnx import ModelProto, NodeProto

from trtdet.calibration.wiring import Shape, infer_values


def multiply_adds(graph: ModelProto, inputs: Mapping[str, Shape]) -> int:
    """For one run on inputs of these shapes. Raises ValueError where a shape stays unknown."""
    return sum(by_output(graph, infer_values(graph, inputs).shapes).values())


def by_output(graph: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Of each node that multiplies, under the name of its output."""
    return {
        node.output[0]: _of_node(node, shapes)
        for node in graph.graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm")
    }


def _of_node(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    try:
        first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    except KeyError as error:
        raise ValueError(f"the shape of {error} at {node.op_type} {node.name} is unknown") from None
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return prod(out) * first[0 if transposed else 1]
    return prod(out) * first[-1]
