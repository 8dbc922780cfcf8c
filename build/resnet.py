"""Stages of bottleneck blocks: the trunk of the ResNet-50 detectors, with torchvision's keys."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.pooled import PooledNetwork

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the 3x3 carries the stride (ResNet v1.5).

    `shortcut` is the projection's name in the checkpoint's keys.
    """

    def __init__(self, channels_in: int, planes: int, stride: int, shortcut: str = "downsample"):
        super().__init__()
        channels_out = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut_name = ""
        if stride != 1 or channels_in != channels_out:
            self.shortcut_name = shortcut
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.add_module(shortcut, nn.Sequential(projection, nn.BatchNorm2d(channels_out)))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (getattr(self, self.shortcut_name)(x) if self.shortcut_name else x))


def bottleneck_stage(
    channels_in: int, planes: int, blocks: int, stride: int, shortcut: str = "downsample"
) -> nn.Sequential:
    """`blocks` bottlenecks, [N, channels_in, H, W] to [N, 4 * planes, H / stride, W / stride]."""
    first = Bottleneck(channels_in, planes, stride, shortcut)
    rest = (Bottleneck(planes * EXPANSION, planes, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class TruncatedResNet(PooledNetwork):
    """The first half of a ResNet-50 behind a fixed front end, [N, 3, H, W] -> [N, 1].

    The trunk of NPR and its descendants: a 3x3 stem, and no third and fourth stage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = bottleneck_stage(64, planes=64, blocks=3, stride=1)
        self.layer2 = bottleneck_stage(64 * EXPANSION, planes=128, blocks=4, stride=2)
        self.fc1 = nn.Linear(128 * EXPANSION, 1)

    def front_end(self, x: Tensor) -> Tensor:
        """What the convolutions see: [N, 3, H, W] to [N, 3, H, W]."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        x = self.front_end(x)
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 64, H / 2, W / 2]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        y: Tensor = self.layer2(self.layer1(x))  # [N, 512, H / 8, W / 8]
        return y

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.fc1(pooled)
        return logit
