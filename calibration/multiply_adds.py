"""How much work a graph is: the multiply-adds of its convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from onnx import ModelProto, NodeProto

from trtdet.calibration.wiring import Shape, infer_values


def multiply_adds(graph: ModelProto, inputs: Mapping[str, Shape]) -> int:
    """For one run on inputs of these shapes; what has no known shape is not counted."""
    return sum(by_output(graph, infer_values(graph, inputs).shapes).values())


def by_output(graph: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Of each node that multiplies and has a known shape, under the name of its output."""
    return {
        node.output[0]: _of_node(node, shapes)
        for node in graph.graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm")
        and all(name in shapes for name in (*node.input[:2], node.output[0]))
    }


def _of_node(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return prod(out) * first[0 if transposed else 1]
    return prod(out) * first[-1]
