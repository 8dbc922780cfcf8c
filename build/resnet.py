"""Stages of bottleneck blocks: the trunk of the ResNet-50 detectors, with torchvision's keys."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the 3x3 carries the stride (ResNet v1.5)."""

    def __init__(self, channels_in: int, planes: int, stride: int):
        super().__init__()
        channels_out = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def bottleneck_stage(channels_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks, [N, channels_in, H, W] to [N, 4 * planes, H / stride, W / stride]."""
    first = Bottleneck(channels_in, planes, stride)
    rest = (Bottleneck(planes * EXPANSION, planes, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
