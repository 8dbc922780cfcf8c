"""float16 written into the graph: casts, and constants of 16 bits.

TensorRT 11 has no precision flags: a strongly typed network computes each node in the type that the
graph says. The body is float16 but for LayerNorm, softmax and every kind of mean, whose sums would
lose too much; front and head stay float32 (see `trtdet.calibration.regions`). On a CPU the same
graph runs in float32, with the weights rounded to 16 bits.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtdet.calibration.regions import PRODUCTS, Regions
from trtdet.calibration.wiring import wire

# QuantizeLinear with a step of float16 is ONNX from here on.
QUANTIZED_HALF_OPSET = 19

# Magnitudes from here on are not float16's: its largest number, less a margin for images that are
# louder than those of the calibration set.
TOO_LARGE = 65504.0 / 2

_FLOAT32 = {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization",
    "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2",
    "ReduceL1", "ReduceLogSumExp", "LpNormalization", "LRN", "MeanVarianceNormalization",
    "GlobalAveragePool", "AveragePool", "Exp", "Log", "Pow", "Sqrt", "Reciprocal",
}  # fmt: skip

# Inputs that stay float32 in a node of float16.
_SCALES = {"Resize": (1, 2), "Upsample": (1,)}

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def half_tensors(graph: ModelProto, regions: Regions) -> list[str]:
    """What a float32 graph would hold in float16: the tensors to look at for overflow."""
    halves = [node.output[0] for node in graph.graph.node if _is_half(node, regions, ())]
    cast = [name for node in graph.graph.node if node.output[0] in halves
            for name in _floats(node, regions) if name not in regions.wiring.constants]  # fmt: skip
    return list(dict.fromkeys([*cast, *halves]))


def to_half(graph: ModelProto, regions: Regions, too_large: Collection[str] = ()) -> ModelProto:
    """A copy of `graph` with its body in float16; `graph` may have been quantised since.

    `regions` are those of the graph before it was. What makes or reads a tensor of `too_large`
    stays in float32.
    """
    half_nodes = {node.output[0] for node in graph.graph.node if _is_half(node, regions, too_large)}
    # A tensor is half once rounded to 8 bits, where what reads it is.
    readers = wire(graph).readers
    for node in graph.graph.node:
        read_by = {reader.output[0] for reader in readers[node.output[0]]}
        if node.op_type == "DequantizeLinear" and half_nodes & read_by:
            half_nodes.add(node.output[0])
    return _Caster(graph, regions, half_nodes).cast()


def opset_of(graph: ModelProto) -> int:
    """The version of ONNX's own operators that a graph is written in."""
    return next(int(each.version) for each in graph.opset_import if not each.domain)


class _Caster:
    """The state of one pass over a graph."""

    def __init__(self, graph: ModelProto, regions: Regions, half_nodes: Collection[str]):
        self._graph, self._regions, self._half_nodes = graph, regions, half_nodes
        self._constants = {each.name: each for each in graph.graph.initializer}
        self._halves: set[str] = set()  # tensors made in float16
        self._nodes: list[NodeProto] = []
        self._made: dict[str, TensorProto] = {}  # constants of float16
        self._casts: set[str] = set()

    def cast(self) -> ModelProto:
        for node in self._graph.graph.node:
            self._nodes.append(self._typed(node))
        used = {name for node in self._nodes for name in node.input}
        kept = [each for each in self._graph.graph.initializer if each.name in used]
        graph = helper.make_graph(
            self._nodes,
            self._graph.graph.name,
            self._graph.graph.input,
            self._graph.graph.output,
            [*kept, *self._made.values()],
        )
        quantized = any(node.op_type == "QuantizeLinear" for node in self._nodes)
        opsets = [
            helper.make_opsetid(each.domain, QUANTIZED_HALF_OPSET)
            if quantized and not each.domain and each.version < QUANTIZED_HALF_OPSET
            else each
            for each in self._graph.opset_import
        ]
        return helper.make_model(
            graph,
            ir_version=max(self._graph.ir_version, 9) if quantized else self._graph.ir_version,
            opset_imports=opsets,
            producer_name=self._graph.producer_name,
            producer_version=self._graph.producer_version,
        )

    def _typed(self, node: NodeProto) -> NodeProto:
        typed = NodeProto()
        typed.CopyFrom(node)
        half = node.output[0] in self._half_nodes
        if node.op_type == "QuantizeLinear":  # it takes a tensor as it is
            if node.input[0] in self._halves:
                typed.input[1] = self._as_half(node.input[1])
            return typed
        if node.op_type == "DequantizeLinear":
            if half:
                typed.input[1] = self._as_half(node.input[1])
                self._halves.update(node.output)
            return typed
        stays = _SCALES.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if not name or place in stays:
                continue
            if half and self._is_float(name):
                typed.input[place] = self._as_half(name)
            elif not half and name in self._halves:
                typed.input[place] = self._cast(name, "float", _FLOAT)
        if half:
            floats = self._regions.values.floats
            self._halves.update(name for name in node.output if name in floats)
            for attribute in typed.attribute:
                if node.op_type == "Cast" and attribute.name == "to":
                    attribute.i = _HALF
        return typed

    def _is_float(self, name: str) -> bool:
        if name in self._constants:
            return bool(self._constants[name].data_type == _FLOAT)
        return name in self._halves or name in self._regions.values.floats

    def _as_half(self, name: str) -> str:
        """The name of a tensor's version in float16, made where there is none yet."""
        if name in self._halves:
            return name
        constant = self._constants.get(name)
        if constant is None:
            return self._cast(name, "half", _HALF)
        half = f"{name}_half"
        if half not in self._made:
            values = numpy_helper.to_array(constant).astype(np.float16)
            self._made[half] = numpy_helper.from_array(values, half)
        return half

    def _cast(self, name: str, suffix: str, to: int) -> str:
        cast = f"{name}_{suffix}"
        if cast not in self._casts:
            self._casts.add(cast)
            self._nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=to))
        return cast


def _is_half(node: NodeProto, regions: Regions, too_large: Collection[str]) -> bool:
    output = node.output[0]
    return (
        output in regions.values.floats
        and output not in regions.front
        and output not in regions.head
        and node.op_type not in _FLOAT32
        and not any(name in too_large for name in (*node.input, *node.output))
        # What has no float input makes float32. A rounded tensor goes by the name it had.
        and any(name.removesuffix("_rounded") in regions.values.floats for name in node.input)
        and not any(_is_lost(name, node, regions) for name in node.input)
    )


def _is_lost(name: str, node: NodeProto, regions: Regions) -> bool:
    """Whether a constant is too large for float16, or too small where it is no layer's weight.

    An epsilon that becomes 0 is a division by 0; a weight that does is a weight of 0.
    """
    constant = regions.wiring.constants.get(name)
    if constant is None or constant.data_type != _FLOAT:
        return False
    values = numpy_helper.to_array(constant)
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    flushed = node.op_type not in PRODUCTS and bool(((half == 0) & (values != 0)).any())
    return flushed or bool(np.isinf(half).any())


def _floats(node: NodeProto, regions: Regions) -> list[str]:
    return [name for name in node.input if name in regions.values.floats]
