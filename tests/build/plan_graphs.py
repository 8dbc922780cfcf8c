"""Small detectors as `trtdet build` exports them, made without torch, and bundles of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trtdet.engine.bundle import GRAPH, PROBES, Bundle, Probes, save_probes, write_record
from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, TenCrop

SIDE = 32  # pixels, of the images that they take


def write_graph(
    path: Path,
    *,
    activation: str = "Relu",
    batch: int | str = "batch",
    side: int | str = SIDE,
    image: str = "image",
    seed: int = 0,
    layers: int = 1,
) -> Path:
    """uint8 NHWC in, normalised, convolutions, one logit out.

    A hundred layers are a quarter of a second of TensorRT-RTX's time.
    """
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.float32(255),
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "std": np.full((1, 3, 1, 1), 0.25, np.float32),
        "kernel": random.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(size=16).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", [image], ["x0"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x0"], ["x1"], name="nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["x1", "scale"], ["x2"], name="unit"),
        helper.make_node("Sub", ["x2", "mean"], ["x3"], name="centre"),
        helper.make_node("Div", ["x3", "std"], ["x4"], name="normalise"),
        helper.make_node("Conv", ["x4", "kernel", "bias"], ["x5"], name="conv", pads=[1] * 4),
        helper.make_node(activation, ["x5"], ["y0"], name="activation"),
    ]
    channels = _add_layers(nodes, weights, layers - 1, random)
    weights["head_weight"] = random.normal(size=(1, channels)).astype(np.float32)
    weights["head_bias"] = np.zeros(1, np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [f"y{layers - 1}"], ["x7"], name="pool"),
        helper.make_node("Flatten", ["x7"], ["x8"], name="flatten"),
        helper.make_node(
            "Gemm", ["x8", "head_weight", "head_bias"], ["logit"], name="head", transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(image, TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def _add_layers(
    nodes: list[NodeProto], weights: dict, count: int, random: np.random.Generator
) -> int:
    """Convolutions that are all a little different, so that none is compiled with another."""
    channels = 16
    for index in range(count):
        side, wider = (1, 3, 5)[index % 3], 16 + index % 7
        kernel = random.normal(size=(wider, channels, side, side)) / 50
        weights[f"kernel{index}"] = kernel.astype(np.float32)
        inputs, pads = [f"y{index}", f"kernel{index}"], [side // 2] * 4
        nodes.append(helper.make_node("Conv", inputs, [f"z{index}"], pads=pads))
        activation = ("Relu", "Sigmoid", "Tanh")[index % 3]
        nodes.append(helper.make_node(activation, [f"z{index}"], [f"y{index + 1}"]))
        channels = wider
    return channels


def write_bundle(folder: Path, *, ten_crop: bool = False, batch: int = 1, **graph) -> Bundle:
    """A bundle whose probes' logits are nobody's: it compiles, and would not score."""
    folder.mkdir(parents=True)
    write_graph(folder / GRAPH, **graph)
    step = TenCrop(SIDE, SIDE) if ten_crop else CenterCrop(SIDE, SIDE)
    save_probes(
        Probes(np.zeros((1, SIDE, SIDE, 3), np.uint8), np.zeros((1, 1), np.float32)), folder
    )
    bundle = Bundle(
        name=folder.name,
        detector="small",
        variant="drawn",
        title="Small",
        paper="",
        repository="",
        licence="",
        trained_on="",
        note="",
        precision="fp32",
        geometry=Geometry.of(step),
        normalization={"mean": [0.5] * 3, "std": [0.25] * 3},
        batch=batch,
        tolerance=1e-4,
        checkpoint={},
        hashes={name: sha256_file(folder / name) for name in (GRAPH, PROBES)},
        drift={},
        tools={},
        path=folder,
    )
    write_record(bundle, folder)
    return bundle
