"""A look at an ONNX graph: who makes a tensor, who reads it, what is constant, how large it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto, shape_inference

Shape = tuple[int, ...]

# Weights from this size on are kept out of the hands of tools that would copy them.
LARGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Wiring:
    """Of one graph, which must not change while this is used."""

    makers: Mapping[str, NodeProto]  # by tensor; inputs and constants have none
    readers: Mapping[str, list[NodeProto]]  # by tensor
    constants: Mapping[str, TensorProto]

    def runtime_inputs(self, node: NodeProto) -> list[str]:
        """The tensors that `node` reads and that are not constant."""
        return [name for name in node.input if name and name not in self.constants]


def wire(graph: ModelProto) -> Wiring:
    """Look at a graph whose nodes are in execution order, as ONNX demands."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.graph.node:
        for name in dict.fromkeys(node.input):
            readers[name].append(node)
    return Wiring(
        makers={name: node for node in graph.graph.node for name in node.output},
        readers=readers,
        constants={each.name: each for each in graph.graph.initializer},
    )


@dataclass(frozen=True)
class Values:
    """What is known of a graph's tensors before it runs."""

    shapes: Mapping[str, Shape]  # those that could be inferred
    floats: frozenset[str]  # those of float32


def infer_values(graph: ModelProto, inputs: Mapping[str, Shape]) -> Values:
    """Every tensor's shape and type, for inputs of these shapes."""
    light, weights = without_weights(graph)
    for value in light.graph.input:
        if (shape := inputs.get(value.name)) is not None:
            del value.type.tensor_type.shape.dim[:]
            for size in shape:
                value.type.tensor_type.shape.dim.add().dim_value = size
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    del light.graph.value_info[:]  # written for free dimensions: they would be believed
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    constants = [*inferred.initializer, *weights.values()]
    shapes = {each.name: tuple(each.dims) for each in constants}
    types = {each.name: each.data_type for each in constants}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        tensor = value.type.tensor_type
        sizes = tuple(dimension.dim_value for dimension in tensor.shape.dim)
        types.setdefault(value.name, tensor.elem_type)
        if tensor.HasField("shape") and all(sizes):
            shapes.setdefault(value.name, sizes)
    floats = frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)
    return Values(shapes, floats)


def without_weights(graph: ModelProto) -> tuple[ModelProto, dict[str, TensorProto]]:
    """A copy whose large weights are inputs, and these weights by name, still in `graph`."""
    whole = graph.graph
    weights = {each.name: each for each in whole.initializer if len(each.raw_data) >= LARGE_BYTES}
    stand_ins = [
        onnx.helper.make_tensor_value_info(name, each.data_type, each.dims)
        for name, each in weights.items()
    ]
    light = onnx.helper.make_graph(
        whole.node,
        whole.name,
        [*whole.input, *stand_ins],
        whole.output,
        [each for each in whole.initializer if each.name not in weights],
        value_info=whole.value_info,
    )
    model = onnx.helper.make_model(
        light,
        ir_version=graph.ir_version,
        opset_imports=graph.opset_import,
        functions=graph.functions,
        producer_name=graph.producer_name,
        producer_version=graph.producer_version,
    )
    return model, weights
