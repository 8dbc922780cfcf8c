"""Small detectors as other people's converters write them, and the same in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

CHANNELS = 6  # of the only convolution

_ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
}


@dataclass(frozen=True)
class Net:
    """Conv 3x3, stride 2; ReLU; the mean of the map; a dense layer; perhaps an activation."""

    layout: str = "NHWC"
    dtype: str = "float32"
    size: tuple[int, int] = (24, 20)
    classes: int = 1
    end: tuple[str, ...] = ()  # operations after the dense layer
    opset: int = 13
    batch: int | str = "N"
    gain: float = 1.0  # of the pixels: 1/64 where they go up to 255
    bias: float = 0.0  # of the last class
    flat: tuple[int, int] = (1, -1)  # the reshape, where the batch is 1
    allowzero: bool = False  # of that reshape

    @property
    def shape(self) -> list[int | str]:
        """Of the input."""
        height, width = self.size
        sides = [height, width, 3] if self.layout == "NHWC" else [3, height, width]
        return [self.batch, *sides]

    def weights(self) -> dict[str, np.ndarray]:
        """Seeded, float32."""
        rng = np.random.default_rng(self.classes)
        bias = np.zeros(self.classes)
        bias[-1] = self.bias
        arrays = {
            "kernel": self.gain * rng.normal(0, 0.5, (CHANNELS, 3, 3, 3)),
            "offset": rng.normal(0, 0.2, CHANNELS),
            "dense": rng.normal(0, 1.5, (CHANNELS, self.classes)),
            "bias": bias,
        }
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """The dense layer's float64 [N, classes] for [N, H, W, 3] in the net's channel order."""
        w = {name: array.astype(np.float64) for name, array in self.weights().items()}
        windows = np.lib.stride_tricks.sliding_window_view(
            pixels.astype(np.float64), (3, 3), axis=(1, 2)
        )[:, ::2, ::2]
        maps = np.einsum("nhwcij,ocij->nhwo", windows, w["kernel"]) + w["offset"]
        return np.maximum(maps, 0).mean((1, 2)) @ w["dense"] + w["bias"]

    def graph(self) -> ModelProto:
        """As ONNX: `pixels` in, `score` out."""
        flatten = ("Flatten", [], {})
        if self.batch == 1:
            flatten = ("Reshape", ["flat"], {"allowzero": 1} if self.allowzero else {})
        steps = [("Cast", [], {"to": TensorProto.FLOAT})] if self.dtype != "float32" else []
        if self.layout == "NHWC":
            steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        steps += [
            ("Conv", ["kernel", "offset"], {"strides": [2, 2]}),
            ("Relu", [], {}),
            ("GlobalAveragePool", [], {}),
            flatten,
            ("Gemm", ["dense", "bias"], {}),
        ]
        steps += [(op, [], {}) for op in self.end]
        nodes, tensor = [], "pixels"
        for number, (op, inputs, attributes) in enumerate(steps):
            out = "score" if number == len(steps) - 1 else f"{op}_{number}"
            nodes.append(helper.make_node(op, [tensor, *inputs], [out], **attributes))
            tensor = out
        arrays = self.weights()
        if self.batch == 1:
            arrays["flat"] = np.array(self.flat, np.int64)
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("pixels", _ELEMENTS[self.dtype], self.shape)],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, [self.batch, self.classes])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def save(self, folder: Path) -> Path:
        """The graph's file."""
        path = folder / "net.onnx"
        onnx.save(self.graph(), path)
        return path


def spec_text(net: Net, output: str, *, top: str = "", **tables: str) -> str:
    """A spec that fits the net; `tables` replace `input`, `geometry` or `normalization`."""
    height, width = net.size
    parts = {
        "input": f'layout = "{net.layout}"\ndtype = "{net.dtype}"',
        "geometry": f'kind = "stretch"\nheight = {height}\nwidth = {width}',
        "normalization": "" if net.dtype == "uint8" else "scale = 255",
        **tables,
    }
    text = f'name = "net"\n{top}\n[input]\n{parts["input"]}\n[[geometry]]\n{parts["geometry"]}\n'
    if parts["normalization"]:
        text += f"[normalization]\n{parts['normalization']}\n"
    return f"{text}[output]\n{output}\n"


def write_spec(folder: Path, text: str) -> Path:
    """A spec file."""
    path = folder / "spec.toml"
    path.write_text(text)
    return path
