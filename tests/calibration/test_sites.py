"""Where 8 bits may go, and where they must not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="calibration needs onnx (trtdet[build])")

from tests.calibration.small_graphs import INPUTS, Graph, attention_net, residual_net
from trtdet.calibration.regions import find_regions
from trtdet.calibration.sites import find_sites, groups_of


def sites_of(model, fixed=()):
    return find_sites(model, find_regions(model, INPUTS, fixed))


def test_convolutions_and_one_branch_of_every_addition():
    sites = sites_of(residual_net())
    assert [(site.output, site.tensor) for site in sites] == [
        ("layer1.0.conv1", "stem_relu"),
        ("layer1.0.conv2", "layer1.0.conv1_relu"),
        ("sum1", "stem_relu"),  # the identity: the convolution's own output stays as it is
        ("layer2.0.conv1", "sum1_relu"),
        ("layer2.0.conv2", "layer2.0.conv1_relu"),
        ("layer2.0.downsample.0", "sum1_relu"),
        ("sum2", "layer2.0.downsample.0"),  # one of two convolutions: TensorRT adds in the other
    ]
    assert all(site.axis == 0 for site in sites)


def test_groups_have_the_names_of_the_network_s_parts():
    """Twice as deep as the others: from four groups on, a group is a block."""
    g = Graph()
    x = g.relu(g.conv(g.front(), "stem.0", 3, 16))
    for block in ("layer1.0", "layer1.1", "layer2.0", "blocks.7"):
        x = g.relu(g.conv(x, f"{block}.conv1", 16, 16))
        x = g.relu(g.conv(x, f"{block}.conv2", 16, 16))
    x = g.relu(g.conv(x, "neck.last", 16, 16))
    g.head(x, 16)
    assert groups_of(sites_of(g.model())) == [
        "stage 1 block 0", "stage 1 block 1", "stage 2 block 0", "block 7", "neck.last"
    ]  # fmt: skip


def test_a_small_network_is_divided_into_its_layers():
    assert groups_of(sites_of(residual_net())) == [
        "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2",
        "layer2.0.downsample.0",
    ]  # fmt: skip
    block = "tower.transformer.resblocks.0"
    assert groups_of(sites_of(attention_net())) == [f"{block}.attn", f"{block}.mlp.c_fc"]


def test_of_a_transformer_only_products_with_weights():
    sites = sites_of(attention_net())
    assert [(site.output, site.tensor, site.weight, site.axis) for site in sites] == [
        ("products", "normed", "val_1", 1),
        ("hidden", "normed_2", "val_2", 1),
    ]


def test_the_first_learned_layer_reads_the_front_and_stays():
    assert "stem" not in {site.output for site in sites_of(residual_net())}


def test_a_fixed_filter_is_the_front_and_what_reads_it_first_stays_too():
    g = Graph()
    residual = g.conv(g.front(), "filters", 3, 16)
    x = g.relu(g.conv(residual, "conv1", 16, 16))
    g.head(g.relu(g.conv(x, "conv2", 16, 16)), 16)
    model = g.model()
    assert [site.output for site in sites_of(model)] == ["conv1", "conv2"]
    assert [site.output for site in sites_of(model, {"network.filters.weight"})] == ["conv2"]


def test_a_layer_without_work_to_save_stays():
    g = Graph()
    x = g.relu(g.conv(g.front(), "conv1", 3, 256))
    x = g.relu(g.conv(x, "conv2", 256, 256))
    small = g.relu(g.conv(x, "small", 256, 4, 1, strides=[16, 16]))
    g.head(small, 4)
    assert [site.output for site in sites_of(g.model())] == ["conv2"]


def test_what_is_pooled_stays_in_squeeze_and_excitation_too():
    g = Graph()
    x = g.relu(g.conv(g.front(), "conv1", 3, 16))
    x = g.relu(g.conv(x, "conv2", 16, 16))
    pooled = g.node("GlobalAveragePool", x, out="pooled")
    flat = g.node("Flatten", pooled, out="flat")
    gate = g.node("MatMul", flat, g.weight("network.gate.weight", 16, 16), out="gate")
    wide = g.node("Reshape", gate, g.constant("wide", np.int64([0, 16, 1, 1])),
                  out="wide_gate")  # fmt: skip
    x = g.node("Mul", x, wide, out="gated")
    g.head(g.relu(g.conv(x, "conv3", 16, 16)), 16)
    model = g.model()
    assert [site.output for site in sites_of(model)] == ["conv2", "conv3"]
    regions = find_regions(model, INPUTS)
    assert {"flat", "gate", "wide_gate", "mean", "logit"} <= regions.head
    assert "gated" not in regions.head | regions.front
