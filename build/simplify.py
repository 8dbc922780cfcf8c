"""Simplify a graph, and see on the probes that it still says the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxsim
from numpy.typing import NDArray

from trtdet.build.placing import OnStage
from trtdet.calibration.wiring import without_weights
from trtdet.engine.backends import BackendStatus, refuse_drift, run_graph
from trtdet.engine.bundle import GRAPH, load_probes, measure_drift
from trtdet.engine.geometry import Geometry
from trtdet.engine.tiles import Tiling

Logits = NDArray[np.float32]

# onnxsim would turn MatMul + Add into Reshape + Gemm + Reshape, which makes transformers larger;
# skipping the first alone does not stop it.
SKIPPED_OPTIMIZERS = [
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
]


def write_simplified(
    make_graph: Callable[[], onnx.ModelProto],
    probe: Callable[[], Logits],
    folder: Path,
    tolerance: float,
    on_stage: OnStage,
) -> Logits:
    """Write the bundle's graph, simplified; the logits [P, K] that `probe` gives for it.

    `make_graph` hands its only reference over: a tower's weights are 1.2 GB. Raises DriftError
    where the probes' logits before and after onnxsim differ by more than `tolerance`.
    """
    graph = make_graph()
    onnx.save(graph, folder / GRAPH)
    before, count = probe(), len(graph.graph.node)
    simplified = simplify_graph(graph)
    del graph
    onnx.save(simplified, folder / GRAPH)
    after = probe()
    drift = measure_drift(after, before, "onnxsim")
    on_stage(
        f"simplify   {count} nodes to {len(simplified.graph.node)}, "
        f"logits moved by at most {drift.max_abs:.2g}"
    )
    refuse_drift(drift, tolerance, "the simplified graph")
    return after


def probe_logits(
    folder: Path,
    backend: BackendStatus,
    geometry: Geometry,
    tiling: Tiling | None = None,
    *,
    batch: int = 1,
) -> Logits:
    """The probes' logits [P, K] of the graph that lies in a bundle's folder."""
    images = [image[None] for image in load_probes(folder).images]
    return run_graph(backend, folder / GRAPH, geometry, tiling, images, batch=batch, slots=2)


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Constant folding and dead-node removal by onnxsim; the caller compares the outputs.

    Large weights go past onnxsim and the checker: both would copy them several times over, a
    gigabyte each, to leave them as they are.
    """
    light, weights = without_weights(graph)
    simplified, _checked = onnxsim.simplify(light, skipped_optimizers=SKIPPED_OPTIMIZERS)
    onnx.checker.check_model(simplified)
    used = {name for node in simplified.graph.node for name in node.input}
    inputs = [each for each in simplified.graph.input if each.name not in weights]
    del simplified.graph.input[:]
    simplified.graph.input.extend(inputs)
    simplified.graph.initializer.extend(weights[name] for name in weights if name in used)
    return without_traces(simplified)


def without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: they name the builder's folders and change with them."""
    for value in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.ClearField("metadata_props")
    return graph
