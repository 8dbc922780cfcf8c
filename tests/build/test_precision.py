"""float16 in the graph: where it is, where it is not, and that a builder takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import onnx  # noqa: E402
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from tests.calibration.small_graphs import (  # noqa: E402
    INPUTS,
    SIDE,
    Graph,
    attention_net,
    residual_net,
)
from trtdet.build.compile import compile_plan  # noqa: E402
from trtdet.build.detectors.registry import detectors  # noqa: E402
from trtdet.build.material import frame_of  # noqa: E402
from trtdet.build.precision import half_tensors, to_half  # noqa: E402
from trtdet.build.profiles import NativeSize  # noqa: E402
from trtdet.calibration.quantize import quantize_graph  # noqa: E402
from trtdet.calibration.regions import find_regions  # noqa: E402
from trtdet.calibration.sites import find_sites  # noqa: E402
from trtdet.engine.bundle import Bundle, open_bundle  # noqa: E402

IMAGES = np.random.default_rng(3).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT

# Nodes that sum over many numbers, or whose exponentials grow.
IN_FLOAT = {"LayerNormalization", "Softmax", "ReduceMean"}


def halved(model: ModelProto, *, eight: bool = False, too_large=()) -> ModelProto:
    regions = find_regions(model, INPUTS)
    if eight:
        sites = find_sites(model, regions)
        model = quantize_graph(model, sites, {site.tensor: 4.0 for site in sites})
    return to_half(model, regions, too_large)


def types_of(model: ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {each.name: each.type.tensor_type.elem_type for each in values}
    return types | {each.name: each.data_type for each in inferred.initializer}


@pytest.mark.parametrize("eight", [False, True], ids=["fp16", "int8"])
@pytest.mark.parametrize("net", [residual_net, attention_net])
def test_the_graph_is_valid_and_near(net, eight):
    model = net()
    half = halved(model, eight=eight)
    onnx.checker.check_model(half, full_check=True)
    (exact,) = ReferenceEvaluator(model).run(None, {"image": IMAGES})
    (near,) = ReferenceEvaluator(half).run(None, {"image": IMAGES})
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < (0.1 if eight else 0.005) * (1 + np.abs(exact).max())


@pytest.mark.parametrize("eight", [False, True], ids=["fp16", "int8"])
@pytest.mark.parametrize("net", [residual_net, attention_net])
def test_the_body_is_float16_and_nothing_else_is(net, eight):
    model = net()
    regions, half = find_regions(model, INPUTS), halved(model, eight=eight)
    types = types_of(half)
    for node in half.graph.node:
        out = node.output[0]
        if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            continue
        outside = out in regions.front or out in regions.head or node.op_type in IN_FLOAT
        assert types[out] == (FLOAT if outside else HALF), out
    assert (types["image"], types["logit"]) == (TensorProto.UINT8, FLOAT)


def test_steps_are_the_same_number_in_both_types():
    half = halved(attention_net(), eight=True)
    constants = {each.name: numpy_helper.to_array(each) for each in half.graph.initializer}
    both = [name for name in constants if f"{name}_half" in constants and name.endswith("_step")]
    assert both  # of what LayerNorm gives in float32, and a product takes in float16
    for name in both:
        assert constants[name] == constants[f"{name}_half"].astype(np.float32)


def test_layernorm_keeps_its_parameters():
    half = halved(attention_net())
    types = types_of(half)
    for node in half.graph.node:
        if node.op_type == "LayerNormalization":
            assert {types[name] for name in node.input} == {FLOAT}


def test_what_overflows_stays_float32_with_its_readers():
    model = residual_net()
    types = types_of(halved(model, too_large=["sum1"]))
    assert (types["sum1"], types["sum1_relu"]) == (FLOAT, FLOAT)
    assert (types["layer1.0.conv2"], types["layer2.0.conv1"]) == (HALF, HALF)


def test_the_overflow_scan_looks_at_all_that_would_be_float16():
    model = residual_net()
    regions = find_regions(model, INPUTS)
    types = types_of(halved(model))
    halves = {name for name, kind in types.items() if kind == HALF}
    tensors = {name.removesuffix("_half") for name in halves}
    constants = {each.name for each in model.graph.initializer}
    assert set(half_tensors(model, regions)) == tensors - constants


def test_scales_of_a_resize_stay_float32():
    g = Graph()
    x = g.relu(g.conv(g.front(), "conv1", 3, 8))
    scales = g.constant("scales", np.float32([1, 1, 2, 2]))
    x = g.node("Resize", x, "", scales, out="large", mode="nearest")
    g.head(g.relu(g.conv(x, "conv2", 8, 8)), 8)
    half = halved(g.model())
    onnx.checker.check_model(half, full_check=True)
    assert types_of(half)["large"] == HALF


@pytest.mark.parametrize("epsilon", [1e-12, 1e6])
def test_what_float16_would_make_0_or_infinite_stays_float32(epsilon):
    g = Graph()
    x = g.relu(g.conv(g.front(), "conv1", 3, 8))
    x = g.node("Max", x, g.constant("epsilon", np.float32(epsilon)), out="floored")
    g.head(g.relu(g.conv(x, "conv2", 8, 8)), 8)
    types = types_of(halved(g.model()))
    assert (types["conv1"], types["floored"], types["conv2"]) == (HALF, FLOAT, HALF)


def test_indices_are_no_floats():
    g = Graph()
    x = g.relu(g.conv(g.front(), "conv1", 3, 8))
    k = g.constant("k", np.int64([4]))
    g.nodes.append(onnx.helper.make_node("TopK", [x, k], ["top", "where"], "top_k", axis=1))
    x = g.node("GatherElements", x, "where", out="gathered", axis=1)
    g.head(g.relu(g.conv(x, "conv2", 4, 8)), 8)
    half = halved(g.model())
    onnx.checker.check_model(half, full_check=True)
    types = types_of(half)
    assert (types["top"], types["where"], types["gathered"]) == (HALF, TensorProto.INT64, HALF)


def accepted_by_tensorrt_rtx(bundle: Bundle, precision: str, path: Path) -> None:
    """Compile the bundle's graph, in fewer bits where asked, for Ampere and Ada."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX")
    graph = onnx.load(bundle.graph)
    shapes = frame_of(bundle).input_shapes()
    regions = find_regions(graph, shapes)
    if precision == "int8":
        sites = find_sites(graph, regions)
        graph = quantize_graph(graph, sites, {site.tensor: 4.0 for site in sites})
    onnx.save(graph if precision == "fp32" else to_half(graph, regions), path)
    for target in ("sm_86", "sm_89"):
        assert compile_plan(path, target=target, batch=1, native=NativeSize.of(bundle)).data


# NoDown networks take their time, and imaginet is one of them.
LATER = ("aligned", "corvi", "gan-nodown")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.full] if name in LATER else []) for name in detectors()],
)
def test_tensorrt_rtx_takes_every_graph_for_ampere_and_ada(name, precision, built, tmp_path):
    """Accepted by the builder, ahead of time and without a GPU: nothing was executed."""
    bundle = open_bundle(built(name, detectors()[name].variants[0].name))
    accepted_by_tensorrt_rtx(bundle, precision, tmp_path / "model.onnx")
