"""From a torch module to the bundle's ONNX graph: uint8 NHWC in, float32 logit out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from trtdet.build.detectors.spec import Normalization
from trtdet.build.simplify import without_traces
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, OUTPUT_NAME, POOLED, ROWS
from trtdet.engine.tiles import Tiling

# 18: LayerNormalization is one node since 17, and every runtime we target reads 18.
OPSET = 18


class EngineModule(nn.Module):
    """A detector with its normalisation in front: uint8 [N, H, W, 3] to float32 [N, 1]."""

    mean: Tensor
    std: Tensor
    table: Tensor  # every level of every channel, normalised, [3 * 256]; only for `by_table`

    def __init__(self, network: nn.Module, normalization: Normalization):
        super().__init__()
        self.network = network
        self.by_table = normalization.by_table
        self.register_buffer("mean", _per_channel(normalization.mean))
        self.register_buffer("std", _per_channel(normalization.std))
        if self.by_table:
            levels = torch.arange(256, dtype=torch.float32).expand(1, 3, 1, 256)
            self.register_buffer("table", self._normalized(levels).flatten())

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
    graph = without_traces(program.model_proto)
    free = [each.dim_param for each in graph.graph.input[0].type.tensor_type.shape.dim]
    if not any(free):  # the exporter fixed what must stay free, without a word
        raise RuntimeError(f"the exported graph takes one size only: {graph.graph.input[0]}")
    module.to("meta")  # the weights are in the graph now, and may be large
    return graph


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


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
