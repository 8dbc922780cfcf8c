"""CLIP's image tower as the detectors on it use it, and the same function without dead weight.

`ClipTower` is OpenAI's network, by hand. What RINE and UnivFD read of it is the class token: after
every block's second LayerNorm, and after the last block. `lean_tower` therefore computes the last
block for that token alone:

- one query in place of T, and its output projection and LayerNorm for one row;
- no keys and no values: softmax(q (W_k x + b_k)) = softmax((W_k^T q) x), because q b_k is the same
  for every token, and sum_t p_t (W_v x_t + b_v) = W_v (sum_t p_t x_t) + b_v, because p sums to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trtdet.build.tower_shapes import TowerConfig

HEAD_WIDTH = 64


class TowerOutput(NamedTuple):
    """What the heads read."""

    taps: Tensor  # [N, blocks, width]: the class token after each block's ln_2
    last: Tensor  # [N, width]: the class token after the last block's attention, residual added


class Attention(nn.Module):
    """Multi-head self-attention with nn.MultiheadAttention's keys."""

    def __init__(self, width: int):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.scale = HEAD_WIDTH**-0.5  # 1/8: scaling by it is exact

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        q, k, v = _by_head(q), _by_head(k), _by_head(v)  # [N, heads, T, 64]
        scores = (q if self.scale == 1.0 else q * self.scale) @ k.transpose(2, 3)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2)  # [N, T, heads, 64]
        y: Tensor = self.out_proj(mixed.flatten(2))
        return y

    def fold_scale(self) -> None:
        """Scale the query's weights, once, in place of every query."""
        width = self.out_proj.in_features
        with torch.no_grad():
            self.in_proj_weight[:width] *= self.scale
            self.in_proj_bias[:width] *= self.scale
        self.scale = 1.0


class Mlp(nn.Module):
    """Two layers with QuickGELU between."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        y: Tensor = self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        return y


class Block(nn.Module):
    """A transformer block; the tower's last one has no MLP: whoever needs it has it."""

    def __init__(self, width: int, *, mlp: bool):
        super().__init__()
        self.attn = Attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width) if mlp else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, T, width] to the block's tokens and the class token's tap [N, width]."""
        x = x + self.attn(self.ln_1(x))
        normal = self.ln_2(x)
        return (x if self.mlp is None else x + self.mlp(normal)), normal[:, 0]


class Transformer(nn.Module):
    """The blocks."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        blocks = (Block(width, mlp=index < layers - 1) for index in range(layers))
        self.resblocks = nn.ModuleList(blocks)


class ClipTower(nn.Module):
    """float32 [N, 3, S, S], normalised -> `TowerOutput`. Keys as in CLIP's `visual`."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        width, side = config.width, config.image_size // config.patch
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(side * side + 1, width))
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers)

    def forward(self, image: Tensor) -> TowerOutput:
        x = self.embed(image)
        taps = []
        for block in self.transformer.resblocks:
            x, tap = block(x)
            taps.append(tap)
        return TowerOutput(torch.stack(taps, 1), x[:, 0])

    def embed(self, image: Tensor) -> Tensor:
        """The tokens that enter the first block: [N, T, width]."""
        patches = self.conv1(image).flatten(2).transpose(1, 2)  # [N, T - 1, width]
        first = (self.class_embedding + self.positional_embedding[0])[None]
        places = torch.cat([first, self.positional_embedding[1:]])  # a constant of the graph
        x: Tensor = self.ln_pre(nn.functional.pad(patches, (0, 0, 1, 0)) + places)
        return x


class ClassTokenBlock(nn.Module):
    """The last block for the class token alone, without its MLP."""

    def __init__(self, block: Block):
        super().__init__()
        self.ln_1, self.ln_2, self.out_proj = block.ln_1, block.ln_2, block.attn.out_proj
        width = block.attn.out_proj.in_features
        heads = width // HEAD_WIDTH
        block.attn.fold_scale()
        w_q, w_k, w_v = block.attn.in_proj_weight.detach().chunk(3)
        b_q, _b_k, b_v = block.attn.in_proj_bias.detach().chunk(3)
        self.query = nn.Linear(width, width)
        self.query.weight, self.query.bias = nn.Parameter(w_q.clone()), nn.Parameter(b_q.clone())
        self.key = nn.Parameter(w_k.reshape(heads, HEAD_WIDTH, width).clone())
        # [heads, width, 64], so that a row vector is multiplied from the left
        self.value = nn.Parameter(w_v.reshape(heads, HEAD_WIDTH, width).transpose(1, 2).clone())
        self.value_bias = nn.Parameter(b_v.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, T, width] to the class token after attention, and its tap: [N, width] each."""
        normal = self.ln_1(x)
        query = self.query(normal[:, 0]).reshape(x.shape[0], -1, 1, HEAD_WIDTH)  # [N, heads, 1, 64]
        looking = (query @ self.key).squeeze(2)  # [N, heads, width]
        shares = (looking @ normal.transpose(1, 2)).softmax(-1)  # [N, heads, T]
        seen = (shares @ normal).unsqueeze(2)  # [N, heads, 1, width]
        mixed = (seen @ self.value).flatten(1) + self.value_bias  # [N, width]
        last = x[:, 0] + self.out_proj(mixed)
        return last, self.ln_2(last)


class LeanTower(nn.Module):
    """`ClipTower` with its last block for the class token alone."""

    def __init__(self, tower: ClipTower):
        super().__init__()
        self.tower = tower
        *self._blocks, last = tower.transformer.resblocks
        assert isinstance(last, Block)
        self.last = ClassTokenBlock(last)
        del tower.transformer.resblocks[-1]
        for block in self._blocks:
            assert isinstance(block, Block)
            block.attn.fold_scale()

    def forward(self, image: Tensor) -> TowerOutput:
        x = self.tower.embed(image)
        taps = []
        for block in self._blocks:
            x, tap = block(x)
            taps.append(tap)
        last, tap = self.last(x)
        return TowerOutput(torch.stack([*taps, tap], 1), last)


def lean_tower(tower: ClipTower) -> LeanTower:
    """The same function, lean. Takes `tower` over: it is not to be used any more."""
    return LeanTower(tower.eval()).eval()


def _by_head(x: Tensor) -> Tensor:
    """[N, T, width] to [N, heads, T, 64]."""
    return x.reshape(*x.shape[:2], -1, HEAD_WIDTH).transpose(1, 2)
