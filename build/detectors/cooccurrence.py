"""Co-occurrences of residuals: which small differences stand beside which, counted over the image.

The rich models of steganalysis as a network (arXiv 1703.04615): fixed linear residuals, coarsely
quantised, and the joint histogram of every pair of them, of one pixel and of neighbours, at full
and at half size. A camera's noise and a generator's texture fill these tables differently, wherever
in the image and whatever it shows. Only the classifier behind them is learned.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.spec import DetectorSpec, Normalization, Variant
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterSquare

# First and second differences of neighbours, in pairs of an image's and of its transpose.
_DIFFERENCES = (
    ((0, 0, 0), (0, -1, 1), (0, 0, 0)),
    ((0, 0, 0), (0, -1, 0), (0, 1, 0)),
    ((0, 0, 0), (1, -2, 1), (0, 0, 0)),
    ((0, 1, 0), (0, -2, 0), (0, 1, 0)),
)
_RIGHT, _DOWN, _ACROSS, _ALONG = range(len(_DIFFERENCES))

# Of luma, and of the two colour differences, in RGB (Rec. 601).
_LUMA = (0.299, 0.587, 0.114)
_BLUE = (-0.299, -0.587, 0.886)
_RED = (0.701, -0.587, -0.114)

# (colour, difference, levels per quantisation step)
_RESIDUALS = (
    (_LUMA, _RIGHT, 2.0),
    (_LUMA, _DOWN, 2.0),
    (_LUMA, _ACROSS, 3.0),
    (_LUMA, _ALONG, 3.0),
    (_BLUE, _RIGHT, 1.2),
    (_BLUE, _DOWN, 1.2),
    (_RED, _RIGHT, 1.2),
    (_RED, _DOWN, 1.2),
)
_BINS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # steps; what lies further out counts in the last
_CHANNELS = len(_RESIDUALS) * len(_BINS)
_SCALES = 2
_TABLE = _SCALES * (_CHANNELS * (_CHANNELS + 1) // 2 + _CHANNELS**2)  # numbers per image

_DIRECTIONS = 128  # of the table's variance that the classifier sees
_HIDDEN = 512
_DAMPING = 0.05  # of the whitening: small directions are noise and stay small
_FARTHEST = 5.0  # standard deviations; an image of one colour would be a hundred away


class Cooccurrence(nn.Module):
    """float32 [N, 3, H, W] in 0..1, even H and W from 8 up -> float32 [N, 1]."""

    differences: Tensor
    colours: Tensor
    bins: Tensor
    transposed: Tensor
    upper: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernels = torch.tensor(_DIFFERENCES, dtype=torch.float32)[:, None]
        colours = torch.zeros(len(_RESIDUALS), 3, len(_DIFFERENCES))
        for number, (colour, difference, step) in enumerate(_RESIDUALS):
            colours[number, :, difference] = 255.0 / step * torch.tensor(colour)
        channels = torch.arange(_CHANNELS).reshape(-1, 2, len(_BINS))
        rows, columns = torch.triu_indices(_CHANNELS, _CHANNELS)
        for name, constant in (
            ("differences", kernels.repeat(3, 1, 1, 1)),
            ("colours", colours.flatten(1)[:, :, None, None]),
            ("bins", torch.tensor(_BINS)[:, None, None]),
            ("transposed", channels.flip(1).flatten()),  # the channels of the transposed image
            ("upper", rows * _CHANNELS + columns),  # a symmetric table's upper triangle
        ):
            self.register_buffer(name, constant, persistent=False)
        self.register_buffer("mean", torch.zeros(_TABLE))
        self.register_buffer("deviation", torch.ones(_TABLE))
        self.directions = nn.Linear(_TABLE, _DIRECTIONS).requires_grad_(False)
        self.hidden = nn.Linear(_DIRECTIONS, _HIDDEN)
        self.drop = nn.Dropout(0.5)
        self.logit = nn.Linear(_HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        table = (self.table(x) - self.mean) / self.deviation
        seen = self.directions(table.clamp(-_FARTHEST, _FARTHEST))
        logit: Tensor = self.logit(self.drop(F.relu(self.hidden(seen))))
        return logit

    def table(self, x: Tensor) -> Tensor:
        """What is counted, float32 [N, T]: square roots of frequencies, whose noise is even."""
        # In eager mode one image at a time, whose counts stay in the cache: 2.5 times as fast.
        parts = (x,) if torch.compiler.is_exporting() else torch.split(x, 1)
        tables = [
            torch.cat([self._frequencies(part), self._frequencies(F.avg_pool2d(part, 2))], 1)
            for part in parts
        ]
        return (torch.cat(tables) + 1e-6).sqrt()

    def _frequencies(self, x: Tensor) -> Tensor:
        """Joint frequencies of pairs of residuals in one pixel and in neighbours, [N, T / 2]."""
        # Differences first, colours then: in a flat area they are 0 in any order of summation, and
        # the square root near 0 would magnify a last bit.
        differences = F.conv2d(x, self.differences, groups=3)  # [N, 12, H - 2, W - 2]
        residuals = F.conv2d(differences, self.colours).clamp(_BINS[0], _BINS[-1])
        # A value between two bins counts in both, in proportion: rounding would make the logit jump
        # where two machines' sums differ in the last bit.
        counts = F.relu(1.0 - (residuals[:, :, None] - self.bins).abs()).flatten(1, 2)
        same = _pairs(counts, counts)
        right = _pairs(counts[..., :-1], counts[..., 1:])
        below = _pairs(counts[:, :, :-1], counts[:, :, 1:])
        # An image and its transpose are the same to a detector.
        same = (same + self._transpose(same)) / 2.0
        beside = (right + self._transpose(below)) / 2.0
        return torch.cat([same.flatten(1)[:, self.upper], beside.flatten(1)], 1)

    def _transpose(self, table: Tensor) -> Tensor:
        return table[:, self.transposed][:, :, self.transposed]


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Mean over the pixels of every product of two channels, [N, C, H, W] twice to [N, C, C]."""
    pixels = first.shape[2] * first.shape[3]
    return first.flatten(2) @ second.flatten(2).transpose(1, 2) / pixels


def build_network(variant: Variant) -> nn.Module:
    """There is one network."""
    return Cooccurrence()


def initialize(network: nn.Module, pieces: Iterable[Tensor]) -> None:
    """Take the standardisation and the principal directions from training images.

    `pieces`: batches of float32 [N, 3, H, W], normalised. The directions are scaled to unit
    variance, damped.
    """
    assert isinstance(network, Cooccurrence)
    table = torch.cat([network.table(batch) for batch in pieces])
    network.mean.copy_(table.mean(0))
    network.deviation.copy_(table.std(0) + 1e-4)
    table = ((table - network.mean) / network.deviation).clamp(-_FARTHEST, _FARTHEST)
    centre = table.mean(0)
    _left, singular, right = torch.linalg.svd(table - centre, full_matrices=False)
    spread = singular[:_DIRECTIONS] / len(table) ** 0.5  # standard deviation of each direction
    known = spread > 1e-3 * spread[0]  # few pieces span few directions: the rest stay 0
    scale = (spread**2 + _DAMPING * spread[0] * spread)[known].rsqrt()
    weight = torch.zeros_like(network.directions.weight)
    weight[: len(scale)] = right[: len(scale)] * scale[:, None]
    network.directions.weight.copy_(weight)
    network.directions.bias.copy_(-(weight @ centre))


def simplify(network: nn.Module) -> nn.Module:
    """The same function; there is nothing to fold."""
    return network


SPEC = DetectorSpec(
    name="cooccurrence",
    title="Residual co-occurrences, trtdet's own",
    paper="after Cozzolino, Poggi and Verdoliva, Recasting Residual-based Local Descriptors as "
    "Convolutional Neural Networks, IH&MMSec 2017, arXiv 1703.04615",
    repository="this project",
    licence="Apache-2.0",
    geometries={"square-200": Geometry.of(CenterSquare(200, 200))},
    normalization=Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    variants=(Variant(name="cooccurrence", trained_on="your own images, with `trtdet train`"),),
    network=build_network,
    simplify=simplify,
    initialize=initialize,
    note="The network of the starter, the bundle that comes with trtdet. Made to be trained on a "
    "CPU: on a few thousand images that takes minutes.",
)
