"""What leaving dead weight out of RINE's tower saves: nodes and multiply-adds of the two graphs.

    python -m trtdet.benchmarks.rine --weights HEAD --backbone CLIP [--out results.json]

The tower's graph in the bundle beside the paper's: what CLIP's `encode_image` computes. How fast
they are is measured by `trtdet.benchmarks.peers`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from trtdet.benchmarks.peers.paper_tower import PaperTower
from trtdet.benchmarks.record import describe_run
from trtdet.build.assemble import BuildRequest, build_bundle
from trtdet.build.detectors.registry import find_detector
from trtdet.build.graph import EngineModule, export_graph
from trtdet.build.load import load_detectors
from trtdet.build.simplify import simplify_graph
from trtdet.calibration.multiply_adds import multiply_adds
from trtdet.engine.bundle import INPUT_NAME


def main() -> None:
    """Build, count, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = {"paper": _paper(options.weights, options.backbone)}
    work["trtdet"] = _bundle(options.weights, options.backbone)
    print(json.dumps(work, indent=1))
    if options.out:
        text = json.dumps({**describe_run(), "work": work}, indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")


def _paper(weights: Path, backbone: Path) -> dict[str, int]:
    spec = find_detector("rine")
    loaded = load_detectors([spec], [weights], [None], backbone)
    assert loaded.tower is not None  # RINE has one
    network: Any = loaded.network
    network.tower = PaperTower(network.tower, loaded.tower.config)
    size = spec.geometry.fixed_size
    graph = simplify_graph(export_graph(EngineModule(network, spec.normalization), *size))
    return _count(graph, size)


def _bundle(weights: Path, backbone: Path) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rine"
        request = BuildRequest("rine", (weights,), backbone=backbone, out=out)
        bundle = build_bundle(request, on_stage=lambda _line: None)
        return _count(onnx.load(bundle.graph), bundle.geometry.fixed_size)


def _count(graph: ModelProto, size: tuple[int, int]) -> dict[str, int]:
    inputs = {INPUT_NAME: (1, *size, 3)}
    return {"nodes": len(graph.graph.node), "multiply_adds": multiply_adds(graph, inputs)}


if __name__ == "__main__":
    main()
