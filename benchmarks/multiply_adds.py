"""How much work a graph is: the multiply-adds of its convolutions and matrix products."""

from __future__ import annotations

from math import prod

import onnx
from onnx import shape_inference

from trtdet.build.simplify import without_weights

Shapes = dict[str, tuple[int, ...]]


def multiply_adds(graph: onnx.ModelProto, input_shape: tuple[int, ...]) -> int:
    """For one run on `image` of this shape. Raises ValueError where a shape stays unknown."""
    light, weights = without_weights(graph)
    dimensions = light.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, input_shape, strict=True):
        dimension.dim_value = size
    inferred = shape_inference.infer_shapes(light, data_prop=True)
    shapes = _shapes(inferred.graph)
    shapes |= {name: tuple(weight.dims) for name, weight in weights.items()}
    return sum(_of_node(node, shapes) for node in inferred.graph.node)


def _shapes(graph: onnx.GraphProto) -> Shapes:
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in values
    }
    return shapes | {each.name: tuple(each.dims) for each in graph.initializer}


def _of_node(node: onnx.NodeProto, shapes: Shapes) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    first, second = shapes.get(node.input[0], ()), shapes.get(node.input[1], ())
    out = shapes.get(node.output[0], ())
    if not (first and second and out and all(first) and all(second) and all(out)):
        raise ValueError(f"the shapes of {node.op_type} {node.name} are not known")
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return prod(out) * first[0 if transposed else 1]
    return prod(out) * first[-1]
