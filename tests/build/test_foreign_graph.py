"""Whatever the graph takes and gives, its bundle gives the right logit: against NumPy, apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="building needs onnx (trtdet[build])")
pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.build.foreign_graphs import Net, spec_text, write_spec
from trtdet.build.foreign_bundle import ForeignRequest, build_foreign
from trtdet.engine.backends import choose_backend, infer, open_session
from trtdet.engine.bundle import Bundle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = f"scale = 255\nmean = {list(MEAN)}\nstd = {list(STD)}"


@dataclass(frozen=True)
class Case:
    net: Net
    output: str
    tables: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bgr: bool = False
    scale: float = 255.0

    def expected(self, images: np.ndarray) -> np.ndarray:
        """Logits [N] of uint8 [N, H, W, 3], by a way of their own."""
        x = (images.astype(np.float64) / self.scale - self.mean) / self.std
        logits = self.net.logits(x[..., ::-1] if self.bgr else x)
        key, _, value = self.output.splitlines()[-1].partition(" = ")
        if key in ("synthetic", "real"):
            chosen = logits[:, int(value)]
            others = np.delete(logits, int(value), axis=1)
            most = others.max(1, keepdims=True)
            one = chosen - most[:, 0] - np.log(np.exp(others - most).sum(1))
        else:
            one = logits[:, 0]
        return -one if "real" in (key, value.strip('"')) else one


PAIR = Net(classes=2, end=("Softmax",))
CASES = {
    "keras sigmoid": Case(Net(end=("Sigmoid",)), 'meaning = "probability"'),
    "opset 18": Case(Net(end=("Sigmoid", "Identity"), opset=18), 'meaning = "probability"'),
    "sigmoid of real": Case(
        Net(end=("Sigmoid",)), 'meaning = "probability"\npositive = "real"'
    ),
    "softmax pair": Case(PAIR, 'meaning = "probabilities"\nsynthetic = 1'),
    "softmax pair, real first": Case(PAIR, 'meaning = "probabilities"\nreal = 0'),
    "softmax of four": Case(
        Net(classes=4, end=("Softmax",)), 'meaning = "probabilities"\nreal = 0'
    ),
    "softmax of four, opset 11": Case(
        Net(classes=4, end=("Softmax",), opset=11), 'meaning = "probabilities"\nsynthetic = 3'
    ),
    "four logits beyond exp, opset 18": Case(
        Net(classes=4, bias=300.0, opset=18), 'meaning = "logits"\nsynthetic = 0'
    ),
    "nchw bgr logits": Case(
        Net(layout="NCHW", classes=2),
        'meaning = "logits"\nsynthetic = 0',
        {"input": 'layout = "NCHW"\nchannels = "BGR"', "normalization": IMAGENET},
        mean=MEAN,
        std=STD,
        bgr=True,
    ),
    "logit of real": Case(Net(), 'meaning = "logit"\npositive = "real"'),
    "pixels from -1 to 1": Case(
        Net(),
        'meaning = "logit"',
        {"normalization": "scale = 127.5\nmean = [1, 1, 1]"},
        mean=(1.0, 1.0, 1.0),
        scale=127.5,
    ),
    "bytes": Case(Net(dtype="uint8", gain=1 / 64), 'meaning = "logit"', scale=1.0),
    "bytes, nchw bgr": Case(
        Net(layout="NCHW", dtype="uint8", gain=1 / 64),
        'meaning = "logit"',
        {"input": 'layout = "NCHW"\ndtype = "uint8"\nchannels = "BGR"'},
        bgr=True,
        scale=1.0,
    ),
    "raw floats": Case(
        Net(gain=1 / 64), 'meaning = "logit"', {"normalization": "scale = 1"}, scale=1.0
    ),
    "float16": Case(Net(dtype="float16"), 'meaning = "logit"'),
    "fixed batch": Case(Net(batch=1, end=("Sigmoid",)), 'meaning = "probability"'),
    "fixed batch, as torch writes it": Case(
        Net(batch=1, opset=18, flat=(1, 6), allowzero=True), 'meaning = "logit"'
    ),
    "fixed batch, allowzero": Case(
        Net(batch=1, opset=18, allowzero=True), 'meaning = "logit"'
    ),
    "opset 9": Case(Net(opset=9, end=("Sigmoid",)), 'meaning = "probability"'),
    "tensorflow": Case(
        Net(size=(24, 24)),
        'meaning = "logit"',
        {"geometry": 'kind = "tensorflow_resize"\nheight = 24\nwidth = 24\nfilter = "bicubic"'},
    ),
}  # fmt: skip


def build(folder: Path, model: Path, spec: str, heard: list[str] | None = None) -> Bundle:
    request = ForeignRequest(model, write_spec(folder, spec), out=folder / "bundle")
    return build_foreign(request, (heard if heard is not None else []).append)


def score(bundle: Bundle, images: np.ndarray, batch: int = 2) -> np.ndarray:
    backend, _ = choose_backend("openvino")
    session, drift = open_session(backend, bundle, batch=batch)
    assert drift.max_relative <= bundle.tolerance
    try:
        return infer(session, [image[None] for image in images])[:, 0]
    finally:
        session.close()


def noise(net: Net, count: int = 5) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *net.size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_the_bundle_gives_the_logit(tmp_path, name):
    case = CASES[name]
    text = spec_text(case.net, case.output, **case.tables)
    bundle = build(tmp_path, case.net.save(tmp_path), text)
    images = noise(case.net)
    expected = case.expected(images)
    assert np.ptp(expected) > 1e-3  # the images differ in the network's eyes
    tolerance = 2e-3 if case.net.dtype == "float16" else 2e-5  # of 1 + |logit|
    assert np.all(np.abs(score(bundle, images) - expected) <= tolerance * (1 + abs(expected)))
    graph = onnx.load(bundle.graph)
    assert not {"Sigmoid", "Softmax"} & {node.op_type for node in graph.graph.node}
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["image", "logit"]


@pytest.mark.parametrize("bias", [45.0, -150.0])
@pytest.mark.parametrize("classes", [1, 2])
def test_a_saturated_probability_keeps_its_logit(tmp_path, bias, classes):
    net = Net(classes=classes, end=("Sigmoid" if classes == 1 else "Softmax",), bias=bias)
    images = noise(net)
    logits = net.logits(images / 255.0)
    expected = logits[:, 0] if classes == 1 else logits[:, 1] - logits[:, 0]
    probability = (1 / (1 + np.exp(-expected))).astype(np.float32)
    assert set(probability) == {np.float32(bias > 0)}  # exactly 0 or 1: the logit is not in it
    meaning = "probability" if classes == 1 else "probabilities"
    choice = "" if classes == 1 else "\nsynthetic = 1"
    bundle = build(tmp_path, net.save(tmp_path), spec_text(net, f'meaning = "{meaning}"{choice}'))
    assert np.allclose(score(bundle, images), expected, rtol=1e-5, atol=0)


def test_probabilities_whose_activation_is_hidden_still_give_logits_and_it_is_said(tmp_path):
    net = Net(end=("Sigmoid", "Relu"))  # ReLU is none of the operations that are looked through
    heard: list[str] = []
    bundle = build(tmp_path, net.save(tmp_path), spec_text(net, 'meaning = "probability"'), heard)
    assert any("no activation was found" in line for line in heard)
    images = noise(net)
    expected = net.logits(images / 255.0)[:, 0]
    assert np.allclose(score(bundle, images), expected, rtol=1e-4, atol=1e-4)


def test_hidden_softmax_of_three(tmp_path):
    net = Net(classes=3, end=("Softmax", "Relu"))
    text = spec_text(net, 'meaning = "probabilities"\nreal = 2')
    bundle = build(tmp_path, net.save(tmp_path), text)
    images = noise(net)
    x = net.logits(images / 255.0)
    expected = np.logaddexp(x[:, 0], x[:, 1]) - x[:, 2]
    assert np.allclose(score(bundle, images), expected, rtol=1e-4, atol=1e-4)


def test_a_hidden_probability_of_exactly_1_is_a_finite_logit(tmp_path):
    net = Net(end=("Sigmoid", "Relu"), bias=60.0)
    bundle = build(tmp_path, net.save(tmp_path), spec_text(net, 'meaning = "probability"'))
    limit = 24 * np.log(2)  # 1 - 2^-24 is the last float32 below 1
    assert np.allclose(score(bundle, noise(net)), limit, rtol=1e-5)


def test_names_of_ours_in_the_graph_and_in_graphs_inside_it(tmp_path):
    """The input is called `logit`, a weight `image`, and an If reads both kinds from outside."""
    net = Net(end=("Identity",))
    model = net.graph()
    names = {"pixels": "logit", "bias": "image", "Gemm_5": "trtdet_in_cast_0"}
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for place, name in enumerate(tensors):
                tensors[place] = names.get(name, name)
    for value in (*model.graph.input, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    last = model.graph.node.pop()
    branches = {}
    for key, op in (("then_branch", "Add"), ("else_branch", "Sub")):
        node = helper.make_node(op, ["trtdet_in_cast_0", "image"], [key])
        out = helper.make_tensor_value_info(key, TensorProto.FLOAT, None)
        branches[key] = helper.make_graph([node], key, [], [out])
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["trtdet_in_cast_0"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "low"], ["always"]),
            helper.make_node("If", ["always"], [last.output[0]], **branches),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(-99), "low"))
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.float32([0.75]), "image"))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    bundle = build(tmp_path, path, spec_text(net, 'meaning = "logit"'))
    images = noise(net)
    expected = replace(net, bias=0.75).logits(images / 255.0)[:, 0] + 0.75
    assert np.allclose(score(bundle, images), expected, rtol=1e-5, atol=1e-5)


def test_weights_in_a_file_beside_the_graph_and_among_its_inputs(tmp_path):
    net = Net()
    model = net.graph()
    model.ir_version = 3  # weights are inputs, too, with a value
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert (tmp_path / "net.data").stat().st_size > 0
    bundle = build(tmp_path, path, spec_text(net, 'meaning = "logit"'))
    (tmp_path / "net.data").unlink()  # the bundle is whole without it
    images = noise(net)
    expected = net.logits(images / 255.0)[:, 0]
    assert np.allclose(score(bundle, images), expected, rtol=1e-5, atol=1e-5)


def test_ten_crops_of_a_graph_with_a_fixed_batch(tmp_path):
    net = Net(batch=1)
    geometry = 'kind = "ten_crop"\nheight = 24\nwidth = 20'
    text = spec_text(net, 'meaning = "logit"', geometry=geometry)
    bundle = build(tmp_path, net.save(tmp_path), text)
    assert bundle.geometry.views == 10
    images = noise(net)
    expected = net.logits(images / 255.0)[:, 0]
    assert np.allclose(score(bundle, images), expected, rtol=1e-5, atol=1e-5)
