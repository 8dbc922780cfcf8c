"""Algebra on trained layers: the same outputs, and the network that was given stays as it was."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from torch import nn  # noqa: E402

from trtdet.build.dead_channels import Linear2d  # noqa: E402
from trtdet.build.fold import conv_from, flush_denormals, fold_batch_norms  # noqa: E402


class Shared(nn.Module):
    """A convolution that is read twice, a BatchNorm without a convolution, a grouped pair."""

    def __init__(self):
        super().__init__()
        self.read_twice = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 8, 3, 2, padding=2, dilation=2, groups=4, bias=False)
        self.folds = nn.BatchNorm2d(8)
        self.alone = nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.read_twice(x)
        y = torch.relu(self.norm(y)) + y
        return self.alone(torch.relu(self.folds(self.grouped(y))))


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.eval()


def test_batch_norm_folds_where_it_may():
    network = randomised(Shared())
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norms(network)
    x = torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-5, atol=1e-5)
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ["norm", "alone"]
    assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)


def test_denormals_become_zero_and_nothing_else_changes():
    conv = nn.Conv2d(1, 4, 1)
    values = torch.tensor([1e-39, -1e-45, 1.2e-38, -3.0])
    conv.weight.data = values.view(4, 1, 1, 1).clone()
    flush_denormals(conv)
    assert conv.weight.flatten().tolist() == [0.0, 0.0, values[2].item(), -3.0]


def test_conv_from_rounds_float64_once():
    weight = torch.rand(2, 3, 3, 3, dtype=torch.float64)
    conv = conv_from(weight, None, stride=2)
    assert conv.weight.dtype == torch.float32
    assert conv(torch.ones(1, 3, 8, 8)).shape == (1, 2, 4, 4)
    assert conv_from(weight, weight[:, 0, 0, 0], padding=0).padding == (0, 0)


class TestLinear2d:
    """Constant inputs: NaN marks those that vary."""

    varies = float("nan")

    def layer(self, size: int) -> Linear2d:
        weight = torch.ones(2, 3, size, size, dtype=torch.float64)
        weight[1, 0] = 0.0
        return Linear2d(weight, torch.tensor([1.0, 2.0], dtype=torch.float64))

    def constants(self, *values: float):
        return torch.tensor(values, dtype=torch.float64)

    def test_a_constant_is_a_bias_of_a_1x1(self):
        live = self.layer(1).without_dead(self.constants(self.varies, 5.0, 0.0))
        assert live.bias.tolist() == [6.0, 7.0]
        assert live.read().tolist() == [True, False, False]
        assert live.output()[0].isnan()
        assert live.output()[1] == 7.0

    def test_under_padding_only_zero_vanishes(self):
        live = self.layer(3).without_dead(self.constants(self.varies, 5.0, 0.0))
        assert live.bias.tolist() == [1.0, 2.0]
        assert live.read().tolist() == [True, True, False]
        assert live.output().isnan().all()

    def test_a_layer_that_reads_nothing_keeps_an_input(self):
        dead = self.layer(3).without_dead(self.constants(0.0, 0.0, 0.0))
        assert dead.output().tolist() == [1.0, 2.0]
        assert dead.read().tolist() == [True, False, False]

    def test_weights_below_rounding_are_dead(self):
        layer = self.layer(3)
        layer.weight[:, 2] = 1e-9
        live = layer.without_dead(torch.full((3,), torch.nan, dtype=torch.float64))
        assert live.read().tolist() == [True, True, False]
