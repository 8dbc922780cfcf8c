"""The fixed front ends of detectors that look at what remains when an image is predicted locally.

All take and give the normalised image, float32 [N, C, H, W], and pad with zeros in its units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cell_difference(x: Tensor) -> Tensor:
    """Each sample less the first of its 2x2 cell, [N, C, H, W] with even H and W.

    Equal bit for bit to NPR's x - up(down(x)), nearest neighbour both ways (arXiv 2312.10461), and
    without its two Resize nodes, whose rounding modes every runtime reads its own way.
    """
    n, c, h, w = x.shape
    cells = x.reshape(n, c, h // 2, 2, w // 2, 2)
    return (cells - cells[:, :, :, :1, :, :1]).reshape(n, c, h, w)


def masked_median_difference(x: Tensor) -> Tensor:
    """x less the median of its 3x3 window with 0 in the centre's place (FerretNet's `median`).

    A selection network in place of a sort. The median of nine numbers in three sorted columns is
    the median of: the largest minimum, the median of medians, the smallest maximum. Columns are
    sorted once and shared by the windows to their left and right.
    """
    padded = F.pad(x, (1, 1, 1, 1))  # [N, C, H + 2, W + 2]
    above, centre, below = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    small, large = torch.minimum(above, below), torch.maximum(above, below)
    low = torch.minimum(small, centre)  # [N, C, H, W + 2], as are middle and high
    middle = torch.maximum(small, torch.minimum(large, centre))
    high = torch.maximum(large, centre)
    # In the window's own column, 0 stands in the centre.
    small, large = small[..., 1:-1], large[..., 1:-1]  # [N, C, H, W]
    own_low, own_high = small.clamp(max=0.0), large.clamp(min=0.0)
    own_middle = torch.maximum(small, large.clamp(max=0.0))

    largest_low = torch.maximum(torch.maximum(low[..., :-2], low[..., 2:]), own_low)
    smallest_high = torch.minimum(torch.minimum(high[..., :-2], high[..., 2:]), own_high)
    median_middle = _median(middle[..., :-2], middle[..., 2:], own_middle)
    return x - _median(largest_low, smallest_high, median_middle)


def _median(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
