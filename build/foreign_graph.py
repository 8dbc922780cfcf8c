"""A graph from elsewhere between the nodes that a bundle needs: image in, one float32 logit out.

Only ONNX's own operators are added, in the graph's own opset. The graph is joined in place rather
than by `onnx.compose`, whose prefixes miss the weights that graphs inside nodes read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtdet.build.foreign import ForeignGraph, all_nodes, inner_graphs
from trtdet.build.foreign_reference import LARGEST, SMALLEST, Head
from trtdet.build.foreign_spec import ForeignSpec
from trtdet.build.graph import OPSET
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.errors import InputError

# The oldest in which the added nodes are what they are today, but for the reductions' axes.
OLDEST_OPSET = 11

# The first in which a reduction's axes are an input.
_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMax": 18}

# The oldest file format for opset 18; before 4, weights would have to be inputs.
_IR_VERSION = 8


@dataclass
class _Nodes:
    """Nodes that are added, each named after the tensor that it gives."""

    opset: int
    prefix: str  # no name of the graph starts so
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its output."""
        name = f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def reduce(self, op: str, tensor: str) -> str:
        """[batch, K] to [batch, 1]."""
        if self.opset < _AXES_AS_INPUT[op]:
            return self.add(op, tensor, axes=[1])
        return self.add(op, tensor, self.constant([1], np.int64))


def engine_graph(foreign: ForeignGraph, spec: ForeignSpec, head: Head) -> ModelProto:
    """The bundle's graph: `image` [batch, H, W, 3] to `logit` float32 [batch, 1].

    A fixed batch of 1 is made free as far as its reshapes allow: the caller compares batches.
    Raises InputError where the opset is too old and cannot be converted.
    """
    model = _modern(foreign)
    graph = model.graph
    names = _names(graph)
    prefix = "trtdet_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    before, after = (_Nodes(opset, f"{prefix}{end}_") for end in ("in", "out"))
    if foreign.fixed_batch:
        _free_batch(graph, foreign.input.name, prefix)
    theirs = {name: f"{prefix}{name}" for name in (INPUT_NAME, OUTPUT_NAME)}
    _rename(graph, theirs)
    prepared = _prepare(before, spec)
    _rename(graph, {theirs.get(foreign.input.name, foreign.input.name): prepared})
    logit = _to_logit(after, spec, head, theirs.get(head.tensor, head.tensor))
    after.nodes.append(helper.make_node("Identity", [logit], [OUTPUT_NAME], f"{prefix}logit"))

    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    pixels = TensorProto.FLOAT if spec.geometry.dtype == np.float32 else TensorProto.UINT8
    shape: list[str | int | None] = ["batch", *spec.geometry.fixed_size, 3]
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, pixels, shape))
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", 1]))
    return model


def _modern(foreign: ForeignGraph) -> ModelProto:
    """A copy in an opset that the added nodes are valid in; the graph's own wherever it is."""
    model = ModelProto()
    model.CopyFrom(foreign.model)
    if foreign.opset < OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(
                f"{foreign.path} has opset {foreign.opset}, and ONNX cannot convert it to {OPSET} "
                f"({' '.join(str(error).split())}): convert the model again with an opset of "
                f"{OLDEST_OPSET} or more"
            ) from error
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return model


def _prepare(nodes: _Nodes, spec: ForeignSpec) -> str:
    """From `image` to what the graph takes; floats first, as TensorRT gathers no bytes."""
    x = INPUT_NAME
    if (scaling := spec.scaling) is not None:
        if spec.geometry.dtype != np.float32:
            x = nodes.add("Cast", x, to=TensorProto.FLOAT)
        if scaling.scale != 1.0:
            x = nodes.add("Div", x, nodes.constant(scaling.scale))
        if any(scaling.mean):
            x = nodes.add("Sub", x, nodes.constant(scaling.mean))
        if set(scaling.std) != {1.0}:
            x = nodes.add("Div", x, nodes.constant(scaling.std))
    if spec.input.channels == "BGR":
        x = nodes.add("Gather", x, nodes.constant([2, 1, 0], np.int64), axis=3)
    if spec.input.layout == "NCHW":
        x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    if spec.input.dtype == "float16":
        x = nodes.add("Cast", x, to=TensorProto.FLOAT16)
    return x


def _to_logit(nodes: _Nodes, spec: ForeignSpec, head: Head, tensor: str) -> str:
    """From the head's tensor to float32 [batch, 1], above 0 for synthetic."""
    x = nodes.add("Cast", tensor, to=TensorProto.FLOAT)
    x = nodes.add("Reshape", x, nodes.constant([-1, head.values], np.int64))
    forward = spec.output.positive == "synthetic"
    if head.meaning == "logit":
        return x if forward else nodes.add("Neg", x)
    if head.meaning == "probability":
        p = nodes.add("Clip", x, nodes.constant(SMALLEST), nodes.constant(LARGEST))
        sides = [p, nodes.add("Sub", nodes.constant(1.0), p)]
    else:
        classes = np.arange(head.values)
        which = (classes == spec.output.index, classes != spec.output.index)
        sides = [
            nodes.add("Gather", x, nodes.constant(classes[each], np.int64), axis=1)
            for each in which
        ]
        if head.meaning == "logits":
            sides[1] = _log_sum_exp(nodes, sides[1]) if head.values > 2 else sides[1]
        else:
            sides[1] = nodes.reduce("ReduceSum", sides[1])
            sides = [nodes.add("Clip", side, nodes.constant(SMALLEST)) for side in sides]
    if head.meaning != "logits":
        sides = [nodes.add("Log", side) for side in sides]
    return nodes.add("Sub", *(sides if forward else sides[::-1]))


def _log_sum_exp(nodes: _Nodes, x: str) -> str:
    """[batch, K] to [batch, 1]; ReduceLogSumExp overflows above 88 in some runtimes."""
    most = nodes.reduce("ReduceMax", x)
    total = nodes.reduce("ReduceSum", nodes.add("Exp", nodes.add("Sub", x, most)))
    return nodes.add("Add", nodes.add("Log", total), most)


def _free_batch(graph: GraphProto, image: str, prefix: str) -> None:
    """Let reshapes of the image's tensors to [1, ...] take any batch."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    from_image = {image}
    for node in graph.node:
        if not from_image.intersection(node.input):
            continue
        from_image.update(node.output)
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).tolist()
        if len(shape) > 1 and shape[0] == 1 and 0 not in shape:
            shape[0] = 0 if -1 in shape else -1  # 0: as many as there are
            del node.attribute[:]  # allowzero, which would make 0 a size
            name = f"{prefix}shape_of_{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
            node.input[1] = name


def _names(graph: GraphProto) -> set[str]:
    """Every name of a tensor, in graphs inside nodes too."""
    names = {name for node in all_nodes(graph) for name in (*node.input, *node.output)}
    for each in _graphs(graph):
        names |= {value.name for value in (*each.initializer, *each.input, *each.output)}
    return names


def _graphs(graph: GraphProto) -> list[GraphProto]:
    return [graph, *(inner for node in all_nodes(graph) for inner in inner_graphs(node))]


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename tensors everywhere, in graphs inside nodes too."""
    for node in all_nodes(graph):
        for tensors in (node.input, node.output):
            for place, name in enumerate(tensors):
                tensors[place] = names.get(name, name)
    for each in _graphs(graph):
        for value in (*each.initializer, *each.input, *each.output):
            value.name = names.get(value.name, value.name)
        for sparse in each.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
