"""CLIP's tower as upstream runs it: what the lean tower of the bundles is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtdet.build.clip_tower import Block, ClipTower, TowerOutput
from trtdet.build.tower_shapes import TowerConfig


class PaperTower(nn.Module):
    """What upstream runs, hooks aside: CLIP's `encode_image`, every token to the last layer.

    Attention is torch's own, with the tower's weights. What no head reads (the last MLP, the
    projection) is computed with weights of its own.
    """

    def __init__(self, tower: ClipTower, config: TowerConfig):
        super().__init__()
        width = config.width
        self.tower = tower
        self.attention = nn.ModuleList(
            _attention(block, width, config.heads) for block in tower.transformer.resblocks
        )
        self.last_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.Linear(4 * width, width))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Linear(width, config.output or width, bias=False)

    def forward(self, image: Tensor) -> TowerOutput:
        x = self.tower.embed(image)
        taps = []
        for block, attention in zip(self.tower.transformer.resblocks, self.attention, strict=True):
            assert isinstance(block, Block)
            y = block.ln_1(x)
            x = x + attention(y, y, y, need_weights=False)[0]
            normal = block.ln_2(x)
            taps.append(normal[:, 0])
            if block.mlp is not None:
                x = x + block.mlp(normal)
            else:
                last = x[:, 0]
                hidden = self.last_mlp[0](normal)
                x = x + self.last_mlp[1](hidden * torch.sigmoid(1.702 * hidden))
        embedding = self.proj(self.ln_post(x[:, 0]))
        # An exporter would drop what nobody reads: upstream computes it, and throws it away.
        return TowerOutput(torch.stack(taps, 1) + 0.0 * embedding.sum(), last)


def _attention(block: nn.Module, width: int, heads: int) -> nn.MultiheadAttention:
    """torch's layer with the block's weights."""
    assert isinstance(block, Block)
    with torch.device("meta"):  # no weights are made that would be thrown away
        made = nn.MultiheadAttention(width, heads, batch_first=True)
    made.load_state_dict(block.attn.state_dict(), assign=True)
    return made
