"""Networks that average features over the image: at a fixed size, or tile by tile at any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtdet.build.fold import fold_batch_norms
from trtdet.build.graph import EngineModule


class PooledNetwork(nn.Module):
    """float32 [N, 3, H, W], normalised -> float32 [N, 1], by a mean over H and W in between."""

    def features(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H', W']."""
        raise NotImplementedError

    def head(self, pooled: Tensor) -> Tensor:
        """[N, C] to [N, 1]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Pooled(nn.Module):
    """The same, from two modules."""

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        # In two steps: a runtime may add all cells of a map one by one, and lose digits.
        logit: Tensor = self.head(self.features(x).mean(3).mean(2))
        return logit


def pooled_channels(network: Pooled) -> int:
    """How many numbers the head reads."""
    with torch.inference_mode():
        return int(network.features(torch.zeros(1, 3, 64, 64)).shape[1])


def fold_pooled(network: nn.Module) -> Pooled:
    """A `PooledNetwork` with every BatchNorm2d folded; `network` is left as it was."""
    assert isinstance(network, PooledNetwork)
    features = fold_batch_norms(network, "features")
    return Pooled(features, fold_batch_norms(network, "head"))


class TileModule(EngineModule):
    """One tile at native resolution, see `trtdet.engine.tiles`.

    image uint8 [1, h, w, 3], rows float32 [h'], columns float32 [w'], carry float32 [1, C] ->
    logit float32 [1, 1], pooled float32 [1, C].
    """

    network: Pooled

    def forward(  # type: ignore[override]
        self, image: Tensor, rows: Tensor, columns: Tensor, carry: Tensor
    ) -> tuple[Tensor, Tensor]:
        cells = self.network.features(self.normalize(image))  # [1, C, h', w']
        by_row = (cells @ columns[:, None]).squeeze(3)  # [1, C, h']
        pooled = carry + (by_row @ rows[:, None]).squeeze(2)
        return self.network.head(pooled), pooled
