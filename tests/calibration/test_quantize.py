"""8 bits in the graph: against the same arithmetic in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="calibration needs onnx (trtdet[build])")

from onnx import numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from tests.calibration.small_graphs import INPUTS, SIDE, attention_net, residual_net  # noqa: E402
from trtdet.calibration.quantize import LEVELS, SMALLEST_STEP, quantize_graph, step  # noqa: E402
from trtdet.calibration.regions import find_regions  # noqa: E402
from trtdet.calibration.sites import find_sites  # noqa: E402

IMAGES = np.random.default_rng(3).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def quantized(model, limit: float = 4.0):
    sites = find_sites(model, find_regions(model, INPUTS))
    return quantize_graph(model, sites, {site.tensor: limit for site in sites})


def constants_of(model) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@given(st.floats(1e-30, 1e6))
def test_a_step_is_a_float16_that_covers_the_limit(limit):
    got = step(limit)
    assert float(np.float16(got)) == got
    assert got * LEVELS >= limit or got * LEVELS == pytest.approx(limit, rel=1e-12)
    assert got <= limit / LEVELS * (1 + 2**-9) + SMALLEST_STEP  # subnormal below 6e-5


def test_a_limit_that_float16_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="beyond what 8 bits and float16 can hold"):
        step(1e9)


@pytest.mark.parametrize("net", [residual_net, attention_net])
def test_the_graph_is_valid_and_computes_nearly_the_same(net):
    model, rounded = net(), quantized(net())
    onnx.checker.check_model(rounded, full_check=True)
    (exact,) = ReferenceEvaluator(model).run(None, {"image": IMAGES})
    rounded.opset_import[0].version = 19  # where the reference begins
    (near,) = ReferenceEvaluator(rounded).run(None, {"image": IMAGES})
    assert 0 < np.abs(near - exact).max() < 0.1 * (1 + np.abs(exact).max())


def test_weights_have_a_step_for_each_output_channel():
    model = residual_net()
    constants, rounded = constants_of(model), constants_of(quantized(model))
    name = "network.layer2.0.conv1.weight"
    levels, steps = rounded[f"{name}_int8"], rounded[f"{name}_step"]
    assert (levels.dtype, steps.shape, name in rounded) == (np.int8, (32,), False)
    assert (np.abs(levels).reshape(32, -1).max(1) == LEVELS).all()
    error = levels * steps[:, None, None, None] - constants[name]
    assert (np.abs(error) <= steps[:, None, None, None] / 2 * (1 + 1e-6)).all()


def test_denormal_channels_round_to_zero():
    model = residual_net()
    (weight,) = (each for each in model.graph.initializer
                 if each.name == "network.layer1.0.conv1.weight")  # fmt: skip
    values = numpy_helper.to_array(weight).copy()
    values[3] = 1e-40
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    rounded = constants_of(quantized(model))
    assert not rounded[f"{weight.name}_int8"][3].any()
    assert rounded[f"{weight.name}_step"][3] == SMALLEST_STEP


def test_zero_points_are_signed_and_zero_and_biases_are_untouched():
    model = residual_net()
    rounded = quantized(model)
    before, after = constants_of(model), constants_of(rounded)
    for node in rounded.graph.node:
        if node.op_type == "QuantizeLinear":
            assert (after[node.input[2]].dtype, after[node.input[2]].item()) == (np.int8, 0)
    for name, values in before.items():
        if name.endswith("bias"):
            assert after[name].tobytes() == values.tobytes()


def test_nothing_stands_between_a_convolution_and_its_relu():
    rounded = quantized(residual_net())
    makers = {name: node for node in rounded.graph.node for name in node.output}
    for node in rounded.graph.node:
        if node.op_type == "Relu":
            assert makers[node.input[0]].op_type in ("Conv", "Add")


def test_a_tensor_is_rounded_once_for_all_its_readers():
    rounded = quantized(residual_net())
    inputs = [node.input[0] for node in rounded.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(inputs) == sorted(set(inputs))
    readers = [node.output[0] for node in rounded.graph.node if "sum1_relu_rounded" in node.input]
    assert readers == ["layer2.0.conv1", "layer2.0.downsample.0"]
