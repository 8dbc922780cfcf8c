"""Find the channels of a trained network that carry nothing, so that they can be left out.

Weight decay can drive whole channels to zero. Walking forward tells which channels never vary,
walking backward which are read. Works on composed convolutions in float64, one `Linear2d` each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# A weight this far below its layer's largest adds less than the rounding of that one's product.
NEGLIGIBLE = 2.0**-23


@dataclass(frozen=True)
class Linear2d:
    """A convolution in float64: weight [out, in, k, k], bias [out], zero padding k // 2."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Linear2d:
        """Any convolution with groups = 1 and dilation = 1."""
        weight = conv.weight.detach().double()
        if conv.bias is None:
            return cls(weight, weight.new_zeros(weight.shape[0]))
        return cls(weight, conv.bias.detach().double())

    def without_dead(self, inputs: Tensor) -> Linear2d:
        """The layer less its negligible weights and the inputs that never vary.

        `inputs` [in] holds the constant value of an input, NaN where it varies. A constant is a
        bias for a 1x1; under zero padding only if it is 0, other constants stay channels.
        """
        weight = self.weight.where(self.weight.abs() > NEGLIGIBLE * self.weight.abs().max(), 0.0)
        constant = inputs.nan_to_num(0.0)
        if weight.shape[-1] == 1:
            bias = self.bias + weight[:, :, 0, 0] @ constant
            return Linear2d(weight * inputs.isnan().view(1, -1, 1, 1), bias)
        return replace(self, weight=weight * (inputs != 0.0).view(1, -1, 1, 1))

    def output(self) -> Tensor:
        """[out]: the value of each output that never varies, NaN for the others.

        A constant input under zero padding varies at the border, so it counts as varying.
        """
        return self.bias.where(self.weight.abs().amax((1, 2, 3)) == 0.0, torch.nan)

    def read(self) -> Tensor:
        """bool [in]: the inputs that this layer looks at."""
        read = self.weight.abs().amax((0, 2, 3)) > 0.0
        read[0] |= ~read.any()  # no runtime has convolutions without inputs
        return read

    def part(self, outputs: Tensor, inputs: Tensor) -> Linear2d:
        """The layer between these channels alone; bool [out] and bool [in]."""
        return Linear2d(self.weight[outputs][:, inputs], self.bias[outputs])


@dataclass(frozen=True)
class LinearBlock:
    """relu(second(relu(first(x))) + shortcut(x)); + x where there is no shortcut."""

    first: Linear2d
    second: Linear2d
    shortcut: Linear2d | None

    def without_dead(self, inputs: Tensor) -> LinearBlock:
        """As `Linear2d.without_dead`, for each layer."""
        first = self.first.without_dead(inputs)
        second = self.second.without_dead(first.output().relu())
        return LinearBlock(first, second, self.shortcut and self.shortcut.without_dead(inputs))

    def output(self, inputs: Tensor) -> Tensor:
        """As `Linear2d.output`, given the block's inputs: NaN, which varies, wins the sum."""
        beside = inputs if self.shortcut is None else self.shortcut.output()
        return (self.second.output() + beside).relu()

    def read(self, wanted: Tensor) -> Tensor:
        """bool [in]: the inputs that the outputs `wanted`, bool [out], depend on."""
        return self.first.read() | (wanted if self.shortcut is None else self.shortcut.read())
