"""From a torch module to the bundle's ONNX graph: uint8 NHWC in, float32 logit out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from trtdet.build.detectors.spec import Normalization
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME

# 18: LayerNormalization is one node since 17, and every runtime we target reads 18.
OPSET = 18

# onnxsim would turn MatMul + Add into Reshape + Gemm + Reshape, which makes transformers larger;
# skipping the first alone does not stop it.
SKIPPED_OPTIMIZERS = [
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
]


class EngineModule(nn.Module):
    """A detector with its normalisation in front: uint8 [N, H, W, 3] to float32 [N, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization):
        super().__init__()
        self.network = network
        self.register_buffer("mean", _per_channel(normalization.mean))
        self.register_buffer("std", _per_channel(normalization.std))

    def forward(self, image: Tensor) -> Tensor:
        """The normalised image through the network."""
        logit: Tensor = self.network(self.normalize(image))  # [N, 1]
        return logit

    def normalize(self, image: Tensor) -> Tensor:
        """The papers' ToTensor and Normalize, operation by operation: to float32 [N, 3, H, W]."""
        x = image.to(torch.float32).permute(0, 3, 1, 2) / 255.0
        return (x - self.mean) / self.std


def export_graph(module: EngineModule, height: int, width: int) -> onnx.ModelProto:
    """Export at opset 18 with a named, free batch dimension."""
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)  # 1 would be taken as fixed
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=65536)}},
            verbose=False,
        )
    assert program is not None  # only the legacy exporter returns nothing
    return _without_traces(program.model_proto)


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Constant folding and dead-node removal by onnxsim; the caller compares the outputs."""
    simplified, _checked = onnxsim.simplify(graph, skipped_optimizers=SKIPPED_OPTIMIZERS)
    return _without_traces(simplified)


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write the graph as one file."""
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


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
