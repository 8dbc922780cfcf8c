"""From a torch module to the bundle's ONNX graph: uint8 NHWC in, float32 logit out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from trtdet.build.detectors.spec import Normalization
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, OUTPUT_NAME, POOLED, ROWS
from trtdet.engine.tiles import Tiling

# 18: LayerNormalization is one node since 17, and every runtime we target reads 18.
OPSET = 18

# onnxsim would turn MatMul + Add into Reshape + Gemm + Reshape, which makes transformers larger;
# skipping the first alone does not stop it.
SKIPPED_OPTIMIZERS = [
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
]


# Weights from this size on are kept out of the simplifier's hands.
LARGE_BYTES = 1 << 16


class EngineModule(nn.Module):
    """A detector with its normalisation in front: uint8 [N, H, W, 3] to float32 [N, 1]."""

    mean: Tensor
    std: Tensor

    table: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization):
        super().__init__()
        self.network = network
        self.by_table = normalization.by_table
        self.register_buffer("mean", _per_channel(normalization.mean))
        self.register_buffer("std", _per_channel(normalization.std))
        levels = torch.arange(256, dtype=torch.float32).expand(1, 3, 1, 256)
        self.register_buffer("table", self._normalized(levels).flatten())  # [3 * 256]

    def forward(self, image: Tensor) -> Tensor:
        """The normalised image through the network."""
        logit: Tensor = self.network(self.normalize(image))  # [N, 1]
        return logit

    def normalize(self, image: Tensor) -> Tensor:
        """The papers' ToTensor and Normalize, operation by operation: to float32 [N, 3, H, W]."""
        if self.by_table:
            channel = torch.arange(3) * 256
            return self.table[image.to(torch.int64) + channel].permute(0, 3, 1, 2)
        return self._normalized(image.to(torch.float32).permute(0, 3, 1, 2))

    def _normalized(self, x: Tensor) -> Tensor:
        return (x / 255.0 - self.mean) / self.std


def export_graph(module: EngineModule, height: int, width: int) -> onnx.ModelProto:
    """Export at opset 18 with a named, free batch dimension. Empties `module` of its weights."""
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)  # 1 would be taken as fixed
    batch = torch.export.Dim("batch", min=1, max=65536)
    return _export(module, {INPUT_NAME: example}, {INPUT_NAME: {0: batch}}, [OUTPUT_NAME])


def export_tiles(module: nn.Module, tiling: Tiling) -> onnx.ModelProto:
    """Export a `TileModule` at opset 18 with free height and width. Empties it of its weights."""
    cells = (16, 12)
    size = (cells[0] * tiling.stride, cells[1] * tiling.stride)
    free = torch.export.Dim.AUTO  # the weights' lengths follow from the image's
    inputs = {
        INPUT_NAME: torch.zeros((1, *size, 3), dtype=torch.uint8),
        ROWS: torch.zeros(cells[0]),
        COLUMNS: torch.zeros(cells[1]),
        CARRY: torch.zeros((1, tiling.channels)),
    }
    shapes = {INPUT_NAME: {1: free, 2: free}, ROWS: {0: free}, COLUMNS: {0: free}, CARRY: None}
    return _export(module, inputs, shapes, [OUTPUT_NAME, POOLED])


def _export(
    module: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, Any], outputs: list[str]
) -> onnx.ModelProto:
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None  # only the legacy exporter returns nothing
    graph = _without_traces(program.model_proto)
    free = [each.dim_param for each in graph.graph.input[0].type.tensor_type.shape.dim]
    if not any(free):  # the exporter fixed what must stay free, without a word
        raise RuntimeError(f"the exported graph takes one size only: {graph.graph.input[0]}")
    module.to("meta")  # the weights are in the graph now, and may be large
    return graph


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
    return _without_traces(simplified)


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write the graph as one file."""
    onnx.save(graph, path)


def without_weights(
    graph: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Drop torch's remarks on itself (deprecations, a missing torchvision); errors still come."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: they name the builder's folders and change with them."""
    for value in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.ClearField("metadata_props")
    return graph


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
