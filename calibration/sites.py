"""Where a network may compute in 8 bits, in groups that have names.

A site is the input of a convolution or of a matrix product with constant weights, or one of the two
inputs of a residual addition. Not among them, whatever they would save:

- the graph's front, and what the first learned layer reads of it; the graph's head;
- LayerNorm, softmax, attention's own products, biases;
- a layer that does less than one part in a thousand of the network's work: the time it would save
  is not worth its error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from trtdet.calibration.multiply_adds import by_output
from trtdet.calibration.regions import Regions, constant_weight
from trtdet.calibration.wiring import Wiring

# Of the network's multiply-adds; below it a layer stays in floating point.
LEAST_SHARE = 1e-3

# A network of fewer groups is divided into its layers: there must be something to choose from.
FEWEST_GROUPS = 4

_PIXELS = 4  # rank of [N, C, H, W]


@dataclass(frozen=True)
class Site:
    """An input of a node that is quantised, and with it the node's weight where it has one."""

    output: str  # the node, by its output
    tensor: str  # which of its inputs
    group: str
    weight: str = ""  # empty: a residual addition
    axis: int = 0  # of the weight's output channels


def find_sites(graph: ModelProto, regions: Regions) -> list[Site]:
    """Every site of a float graph, in its order."""
    sites = _find(graph, regions, _group)
    if len(groups_of(sites)) < FEWEST_GROUPS:
        return _find(graph, regions, _layer)
    return sites


def _find(graph: ModelProto, regions: Regions, name: Callable[[str], str]) -> list[Site]:
    """The sites, in groups by `name` of their parameters' path."""
    wiring, shapes = regions.wiring, regions.values.shapes
    work = by_output(graph, shapes)
    least = LEAST_SHARE * sum(work.values())
    sites: dict[str, Site] = {}
    for node in graph.graph.node:
        output = node.output[0]
        if output in regions.front or output in regions.head:
            continue
        read = wiring.runtime_inputs(node)
        if weight := constant_weight(node, wiring):
            axis = _channels(node, wiring.constants[weight])
            worth = work.get(output, 0) >= max(least, 1)
            if axis is not None and worth and read[0] not in regions.front:
                group = name(_path(node, weight, wiring))
                sites[output] = Site(output, read[0], group, weight, axis)
        elif node.op_type == "Add" and len(shapes.get(output, ())) == _PIXELS:
            sites |= _residual(node, read, sites, wiring)
    return list(sites.values())


def _channels(node: NodeProto, weight: TensorProto) -> int | None:
    """The axis of a weight's output channels; None where its layer has no 8-bit kernel."""
    if node.op_type == "Conv":
        return 0
    attributes = {each.name: each.i for each in node.attribute}
    if len(weight.dims) != 2 or attributes.get("transA", 0):
        return None
    return 0 if attributes.get("transB", 0) else 1


def groups_of(sites: Collection[Site]) -> list[str]:
    """The groups' names, in the order of the graph."""
    return list(dict.fromkeys(site.group for site in sites))


def _residual(
    node: NodeProto, read: list[str], sites: Mapping[str, Site], wiring: Wiring
) -> dict[str, Site]:
    """The addition's site: one input only, so that TensorRT adds in the other's convolution."""
    made_here = [name for name in read if name in sites and len(wiring.readers[name]) == 1]
    if len(read) != len(node.input) or not made_here:
        return {}
    branch = next((name for name in read if name not in made_here), made_here[-1])
    return {node.output[0]: Site(node.output[0], branch, sites[made_here[0]].group)}


def _path(node: NodeProto, weight: str, wiring: Wiring) -> str:
    """The name of a layer's parameters; the layer's own where they have none that tells."""
    names = [weight, *(name for name in node.input[2:] if name)]
    for reader in wiring.readers.get(node.output[0], ()):
        if reader.op_type == "Add":  # the exporter keeps a linear layer's bias apart
            names += [name for name in reader.input if name in wiring.constants]
    own = f"layer {node.name or node.output[0]}"
    path = next((name for name in names if re.search(r"[./]", name)), own)
    return re.sub(r"^network\.(features\.)?", "", path)


def _layer(path: str) -> str:
    """The layer of a parameter."""
    return re.sub(r"[./][^./]*$", "", path)


def _group(path: str) -> str:
    """The part of the network that a parameter is in."""
    if found := re.search(r"\bresblocks\.(\d+)\.(attn|mlp)\b", path):
        return f"block {found[1]} {'attention' if found[2] == 'attn' else 'MLP'}"
    if found := re.search(r"\blayer(\d+)\.(\d+)\b", path):
        return f"stage {found[1]} block {found[2]}"
    if found := re.search(r"\bblocks\.(\d+)\b", path):
        return f"block {found[1]}"
    return _layer(path)
