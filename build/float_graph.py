"""A float32 graph with all that is needed to write it in fewer bits."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from trtdet.build.material import Frame, Material
from trtdet.build.placing import OnStage
from trtdet.build.precision import TOO_LARGE, half_tensors, to_half
from trtdet.calibration.collect import OnImage
from trtdet.calibration.limits import Method
from trtdet.calibration.quantize import LARGEST_LIMIT, quantize_graph
from trtdet.calibration.ranges import Ranges, choose_ranges, observe, range_key, read_ranges
from trtdet.calibration.regions import Regions, find_regions
from trtdet.calibration.sites import Site, find_sites, groups_of
from trtdet.errors import InputError

_SAID_EVERY_S = 20.0


@dataclass(frozen=True)
class FloatGraph:
    """The graph, where it may be rounded, and what its tensors were seen to hold."""

    graph: ModelProto
    regions: Regions
    sites: tuple[Site, ...]
    ranges: Ranges

    @property
    def groups(self) -> list[str]:
        """Of its layers, in order."""
        return groups_of(self.sites)

    @property
    def too_large(self) -> list[str]:
        """Tensors that float16 could not hold."""
        loud = [name for name, largest in self.ranges.largest.items() if largest > TOO_LARGE]
        return [*loud, *(f"{name}_rounded" for name in loud)]

    def half(self) -> ModelProto:
        """In float16."""
        return to_half(self.graph, self.regions, self.too_large)

    def eight(self, kept: Collection[str] = (), impossible: Collection[str] = ()) -> ModelProto:
        """In 8 bits but for the groups `kept` and the weights `impossible`; float16 elsewhere."""
        sites = [
            site
            for site in self.sites
            if site.group not in kept and not (site.weight and site.weight in impossible)
        ]
        rounded = quantize_graph(self.graph, sites, self.ranges.limits)
        return to_half(rounded, self.regions, self.too_large)


def read_float_graph(
    path: Path, frame: Frame, material: Material, method: Method, old: Path, on_stage: OnStage
) -> FloatGraph:
    """Look at the graph of a bundle, and run it on the calibration images for its ranges.

    Those of the bundle's last build, in `old`, are taken over where nothing changed. Raises
    InputError for a graph that cannot be written in fewer bits.
    """
    graph = onnx.load(path)
    _check(graph, path)
    regions = find_regions(graph, frame.input_shapes(), frame.fixed)
    sites = tuple(find_sites(graph, regions))
    tensors = list(dict.fromkeys(site.tensor for site in sites))
    others = half_tensors(graph, regions)
    images = material.chosen.of("calibration")
    key = range_key(path, frame.geometry, images, tensors, others, method)
    ranges = read_ranges(old)
    if ranges is not None and (changed := ranges.key.changed_parts(key)):
        on_stage(f"ranges     those of the last build do not hold: another {', '.join(changed)}")
        ranges = None
    if ranges is None:
        seen = observe(
            path, frame.geometry, frame.tiling, images, tensors, others, key,
            _progress(len(images), on_stage),
        )  # fmt: skip
        ranges = choose_ranges(seen, key, method)
    sites = tuple(each for each in sites if ranges.limits[each.tensor] <= LARGEST_LIMIT)
    on_stage(f"ranges     of {len(tensors)} tensors by {method}, {len(sites)} places for 8 bits")
    return FloatGraph(graph, regions, sites, ranges)


def _check(graph: ModelProto, path: Path) -> None:
    """Raise InputError for a graph whose nodes this version cannot type one by one."""
    nodes = graph.graph.node
    if any(attribute.HasField("g") for node in nodes for attribute in node.attribute):
        raise InputError(f"{path} has branches or loops: it cannot be built in fewer bits")
    if graph.functions:
        raise InputError(f"{path} has functions of its own: inline them (onnx.inliner) first")
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes):
        raise InputError(f"{path} is quantised already: convert it from the float model")


def _progress(total: int, on_stage: OnStage) -> OnImage:
    """Says how far it is, not too often."""
    said = time.monotonic()

    def on_image(count: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SAID_EVERY_S:
            said = time.monotonic()
            on_stage(f"ranges     {count} of {total} images")

    return on_image
