"""The three parts of a detector's graph, each with a precision of its own.

front  the image's bytes, their normalisation, a forensic residual: all before the first learned
       layer. Its few levels carry the whole answer, and it costs little: float32.
body   the learned layers that look at pixels or tokens: nearly all the work.
head   what is left of an image once its places are pooled, down to the logit. It costs nothing, and
       its rounding would go straight into the score: float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from trtdet.calibration.wiring import Shape, Values, Wiring, infer_values, wire

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class Regions:
    """Which tensors are where; the body's are all others."""

    front: frozenset[str]
    head: frozenset[str]
    wiring: Wiring
    values: Values


def find_regions(
    graph: ModelProto, inputs: Mapping[str, Shape], fixed: Collection[str] = ()
) -> Regions:
    """Divide a float graph. `fixed` names the weights that nobody learned, a residual's filters.

    `inputs` are shapes that the graph takes; the first input is the image.
    """
    wiring, values = wire(graph), infer_values(graph, inputs)
    image = graph.graph.input[0].name
    front: set[str] = {image}
    views = inputs[image][0]
    pooling = {each.name for each in graph.graph.input} - {image}  # a tile's weights and its carry
    head: set[str] = set(pooling)
    for node in graph.graph.node:
        read = wiring.runtime_inputs(node)
        learned = (weight := constant_weight(node, wiring)) and weight not in fixed
        if not learned and front.issuperset(read):
            front.update(node.output)
        elif pooling.intersection(read):
            pooling.update(node.output)
            head.update(node.output)
        elif _one_vector(node, values, views) or (read and head.issuperset(read)):
            head.update(node.output)
    return Regions(frozenset(front), frozenset(head), wiring, values)


def constant_weight(node: NodeProto, wiring: Wiring) -> str:
    """The constant that a convolution or a product multiplies by; empty where there is none."""
    if node.op_type not in PRODUCTS or node.input[0] in wiring.constants:
        return ""
    return node.input[1] if node.input[1] in wiring.constants else ""


def _one_vector(node: NodeProto, values: Values, views: int) -> bool:
    """Whether a node gives one vector for a view, [N, C]: its places are pooled."""
    shape = values.shapes.get(node.output[0], ())
    return 0 < len(shape) <= 2 and shape[0] == views and node.output[0] in values.floats
