"""FerretNet as its training left it: most channels are dead, and parallel layers are one layer.

Inside the blocks of the released S model, 53 to 97 % of the channels hold weights below 1e-8, most
of them denormal, beside live ones of 1e-3 to 10. A network 4 to 34 channels wide (6,847 of 126,289
parameters) gives the same logits within 3e-6 of 1 + |logit| and takes less than half of the time.
Widths are left odd: OpenVINO was slower when they were filled up to 16. What else changes, none of
it the function:

- the 3x3 and the dilated 3x3 that are added become one 5x5;
- a grouped convolution with two outputs per input becomes a depthwise one over the input twice
  (runtimes have fast kernels for depthwise only), its outputs' order undone in the next 1x1;
- the last 1x1 joins the linear layer behind the pooling.

Products of 1x1 and depthwise layers stay apart: dense 5x5 and 3x3 convolutions are fewer nodes,
but took a fifth more of the time in OpenVINO even at these widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.dead_channels import Linear2d, LinearBlock
from trtdet.build.fold import conv_from
from trtdet.build.pooled import Pooled
from trtdet.build.residuals import masked_median_difference

_BLOCKS = ("feature.0.0", "feature.0.1", "feature.1.0", "feature.1.1")


class CompactFeatures(nn.Module):
    """float32 [N, 3, H, W], normalised -> float32 [N, live channels, H / 8, W / 8]."""

    def __init__(self, stem: list[nn.Conv2d], blocks: list[CompactBlock]):
        super().__init__()
        self.stem = nn.Sequential(*(layer for conv in stem for layer in (conv, nn.ReLU())))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(self.stem(masked_median_difference(x)))
        return y


class CompactBlock(nn.Module):
    """The live part of a block: [N, in, H, W] -> [N, out, H / stride, W / stride]."""

    def __init__(self, layers: Layers, block: LinearBlock, inputs: Tensor, outputs: Tensor):
        super().__init__()
        inner = block.second.read()  # bool [channels]
        self.copies = layers.spread.shape[0] // inputs.shape[0]  # spread outputs per input
        # The j-th copy of input i is read by the spread's output i * copies + j.
        copy = torch.arange(self.copies).view(-1, 1)
        spread = (torch.nonzero(inputs).T * self.copies + copy).flatten()
        self.spread = conv_from(layers.spread[spread], None, layers.stride, groups=len(spread))
        self.mix = conv_from(layers.mix.weight[inner][:, spread], layers.mix.bias[inner])
        self.depth = conv_from(layers.depth[inner], None, groups=int(inner.sum()))
        point = layers.point.part(outputs, inner)
        self.point = conv_from(point.weight, point.bias)
        self.shortcut: nn.Module = nn.Identity()
        if block.shortcut is not None:
            shortcut = block.shortcut.part(outputs, inputs)
            self.shortcut = conv_from(shortcut.weight, shortcut.bias, layers.stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.copies == 1 else torch.cat([x] * self.copies, 1)
        y = F.relu(self.mix(self.spread(y)))
        return F.relu(self.point(self.depth(y)) + self.shortcut(x))


@dataclass(frozen=True)
class Layers:
    """One block's trained layers in float64, BatchNorm folded, the parallel pair merged."""

    spread: Tensor  # [channels, 1, 5, 5]: output c reads input c * inputs // channels
    mix: Linear2d  # 1x1
    depth: Tensor  # [channels, 1, 3, 3]
    point: Linear2d  # 1x1
    shortcut: Linear2d | None  # 1x1
    stride: int
    inputs: int

    @classmethod
    def of(cls, network: nn.Module, name: str) -> Layers:
        near = _conv(network, f"{name}.layers.0.conv1")
        far = _conv(network, f"{name}.layers.0.conv2")
        spread = F.pad(near.weight.detach().double(), (1, 1, 1, 1))
        spread[:, :, ::2, ::2] += far.weight.detach().double()  # dilation 2
        same = near.stride[0] == 1 and near.in_channels == near.out_channels
        return cls(
            spread=spread,
            mix=Linear2d.of(_conv(network, f"{name}.layers.0.conv3")),
            depth=_conv(network, f"{name}.layers.3.depth_wise").weight.detach().double(),
            point=Linear2d.of(_conv(network, f"{name}.layers.3.point_wise")),
            shortcut=None if same else Linear2d.of(_conv(network, f"{name}.shortcut.0")),
            stride=near.stride[0],
            inputs=near.in_channels,
        )

    def composed(self) -> LinearBlock:
        """What the layers compute: one 5x5 and one 3x3 convolution."""
        channels = self.spread.shape[0]
        dense = self.spread.new_zeros(channels, self.inputs, 5, 5)
        output = torch.arange(channels)
        dense[output, output * self.inputs // channels] = self.spread[:, 0]
        first = torch.einsum("om,mihw->oihw", self.mix.weight[:, :, 0, 0], dense)
        second = self.point.weight * self.depth[:, 0]  # [out, in, 1, 1] * [in, 3, 3]
        return LinearBlock(
            Linear2d(first, self.mix.bias), Linear2d(second, self.point.bias), self.shortcut
        )


def compact(folded: nn.Module) -> Pooled:
    """The live network. `folded`: a FerretNet whose BatchNorm is folded already."""
    convs = [_conv(folded, "cbr1.0"), _conv(folded, "cbr2.0")]
    layers = [Layers.of(folded, name) for name in _BLOCKS]

    # Forward: which channels never vary. The image's three do.
    constants = torch.full((3,), torch.nan, dtype=torch.float64)
    stem, blocks = [], []
    for conv in convs:
        stem.append(Linear2d.of(conv).without_dead(constants))
        constants = stem[-1].output().relu()
    for of_block in layers:
        blocks.append(of_block.composed().without_dead(constants))
        constants = blocks[-1].output(constants)
    head = _head(folded).without_dead(constants)

    # Backward: which channels are read.
    keep = [head.read()]
    for block in reversed(blocks):
        wanted = block.read(keep[0])
        if block.shortcut is None:
            keep[0] = wanted  # x is added to the output, so both ends have the same channels
        keep.insert(0, wanted)
    keep = [torch.ones(3, dtype=torch.bool), stem[1].read(), *keep]

    parts = [conv.part(keep[i + 1], keep[i]) for i, conv in enumerate(stem)]
    features = CompactFeatures(
        [conv_from(p.weight, p.bias, c.stride[0]) for p, c in zip(parts, convs, strict=True)],
        [
            CompactBlock(of_block, block, keep[i + 2], keep[i + 3])
            for i, (of_block, block) in enumerate(zip(layers, blocks, strict=True))
        ],
    )
    return Pooled(features, _linear(head.part(torch.ones(1, dtype=torch.bool), keep[-1])))


def _linear(layer: Linear2d) -> nn.Linear:
    """A 1x1 convolution as the layer behind the mean."""
    linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    linear.weight = nn.Parameter(layer.weight[:, :, 0, 0].float())
    linear.bias = nn.Parameter(layer.bias.float())
    return linear


def _head(folded: nn.Module) -> Linear2d:
    """The last 1x1 has no activation behind it: it commutes with the mean."""
    last = _conv(folded, "feature.2").weight.detach().double()[:, :, 0, 0]
    linear = folded.get_submodule("logit.1")
    weight = linear.get_parameter("weight").detach().double() @ last
    return Linear2d(weight[:, :, None, None], linear.get_parameter("bias").detach().double())


def _conv(network: nn.Module, name: str) -> nn.Conv2d:
    conv = network.get_submodule(name)
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"{name} is a {type(conv).__name__}, not a convolution")
    return conv
