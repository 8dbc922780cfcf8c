"""ONNX graphs small enough to think through, for tests of precision."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIDE = 32


class Graph:
    """Nodes one after the other, from uint8 `image` [N, SIDE, SIDE, 3] on."""

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seed)
        self.nodes: list = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, out: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [out], f"node_{out}", **attributes))
        return out

    def weight(self, name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        values = self._rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        self.constants[name] = values.astype(np.float32)
        return name

    def constant(self, name: str, value) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def conv(self, x: str, name: str, ins: int, outs: int, side: int = 3, **attributes) -> str:
        weight = self.weight(f"network.{name}.weight", outs, ins, side, side)
        bias = self.constant(f"network.{name}.bias", np.full(outs, 0.01, np.float32))
        pads = [side // 2] * 4
        return self.node("Conv", x, weight, bias, out=name, pads=pads, **attributes)

    def relu(self, x: str) -> str:
        return self.node("Relu", x, out=f"{x}_relu")

    def front(self) -> str:
        """Bytes to [-1, 1], channels first."""
        x = self.node("Cast", "image", out="float", to=TensorProto.FLOAT)
        x = self.node("Transpose", x, out="planes", perm=[0, 3, 1, 2])
        return self.node("Div", x, self.constant("scale", np.float32(255)), out="front")

    def head(self, x: str, channels: int) -> str:
        mean = self.node("ReduceMean", x, self.constant("axes", np.int64([2, 3])), out="mean",
                         keepdims=0)  # fmt: skip
        weight = self.weight("network.fc.weight", channels, 1)
        return self.node("Gemm", mean, weight, out="logit")

    def model(self) -> ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
        logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "small", [image], [logit], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


INPUTS = {"image": (1, SIDE, SIDE, 3)}


def residual_net() -> ModelProto:
    """A stem, a block whose branch is the identity, and one whose branch is a convolution."""
    g = Graph()
    x = g.relu(g.conv(g.front(), "stem", 3, 16))
    y = g.relu(g.conv(x, "layer1.0.conv1", 16, 16))
    y = g.conv(y, "layer1.0.conv2", 16, 16)
    x = g.relu(g.node("Add", y, x, out="sum1"))
    y = g.relu(g.conv(x, "layer2.0.conv1", 16, 32, strides=[2, 2]))
    y = g.conv(y, "layer2.0.conv2", 32, 32)
    shortcut = g.conv(x, "layer2.0.downsample.0", 16, 32, 1, strides=[2, 2])
    x = g.relu(g.node("Add", y, shortcut, out="sum2"))
    g.head(x, 32)
    return g.model()


def attention_net() -> ModelProto:
    """A patch embedding and one block of a transformer, as the exporter writes it."""
    g, width = Graph(), 32
    x = g.conv(g.front(), "tower.conv1", 3, width, 1, strides=[8, 8])
    x = g.node("Reshape", x, g.constant("flat", np.int64([0, width, -1])), out="flattened")
    x = g.node("Transpose", x, out="tokens", perm=[0, 2, 1])
    for name in ("ln_1", "ln_2"):
        g.constant(f"{name}.scale", np.ones(width, np.float32))
        g.constant(f"{name}.bias", np.zeros(width, np.float32))
    block = "network.tower.transformer.resblocks.0"
    y = g.node("LayerNormalization", x, "ln_1.scale", "ln_1.bias", out="normed")
    y = g.node("MatMul", y, g.weight("val_1", width, 3 * width), out="products")
    bias = g.constant(f"{block}.attn.in_proj_bias", np.zeros(3 * width, np.float32))
    y = g.node("Add", y, bias, out="qkv")
    g.nodes.append(helper.make_node("Split", [y], ["q", "k", "v"], "split", axis=2, num_outputs=3))
    k = g.node("Transpose", "k", out="k_turned", perm=[0, 2, 1])
    scores = g.node("MatMul", "q", k, out="scores")
    shares = g.node("Softmax", scores, out="shares", axis=-1)
    y = g.node("MatMul", shares, "v", out="mixed")
    x = g.node("Add", x, y, out="attended")
    y = g.node("LayerNormalization", x, "ln_2.scale", "ln_2.bias", out="normed_2")
    y = g.node("MatMul", y, g.weight("val_2", width, width), out="hidden")
    bias = g.constant(f"{block}.mlp.c_fc.bias", np.zeros(width, np.float32))
    y = g.node("Add", y, bias, out="hidden_biased")
    x = g.node("Add", x, y, out="last")
    mean = g.node("ReduceMean", x, g.constant("axes", np.int64([1])), out="mean", keepdims=0)
    g.node("Gemm", mean, g.weight("network.fc.weight", width, 1), out="logit")
    return g.model()
