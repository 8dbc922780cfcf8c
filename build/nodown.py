"""ResNet-50 without down-sampling in its stem: the trunk of the "NoDown" detectors.

Grip-unina's res50nodown (GANimageDetection, DMimageDetection, AlignedForensics) and ImagiNet's
encoder: torchvision's ResNet-50 with both strides of the stem set to 1, so that the finest traces
reach the residual blocks. Sixteen times the work of a ResNet-50.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.spec import Reach
from trtdet.build.pooled import PooledNetwork
from trtdet.build.resnet import EXPANSION, bottleneck_stage

CHANNELS = 512 * EXPANSION

# The stem 9; then 2 for every 3x3 convolution, in steps of 1, 2, 4 and 8 pixels.
RECEPTIVE_FIELD = 9 + 3 * 2 + (2 + 3 * 4) + (4 + 5 * 8) + (8 + 2 * 16)
REACH = Reach(RECEPTIVE_FIELD, stride=8, tile=640, pixel_bytes=3000)


class NoDownTrunk(nn.Module):
    """float32 [N, 3, H, W], normalised -> float32 [N, 2048, H / 8, W / 8], sides rounded up."""

    def __init__(self, shortcut: str = "downsample"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = bottleneck_stage(64, 64, 3, 1, shortcut)
        self.layer2 = bottleneck_stage(64 * EXPANSION, 128, 4, 2, shortcut)
        self.layer3 = bottleneck_stage(128 * EXPANSION, 256, 6, 2, shortcut)
        self.layer4 = bottleneck_stage(256 * EXPANSION, 512, 3, 2, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 64, H, W]
        x = F.max_pool2d(x, 3, stride=1, padding=1)
        x = self.layer2(self.layer1(x))
        y: Tensor = self.layer4(self.layer3(x))
        return y


class NoDown(PooledNetwork, NoDownTrunk):
    """The mean of the features through one linear layer; grip-unina's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 1)

    def features(self, x: Tensor) -> Tensor:
        return NoDownTrunk.forward(self, x)

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.fc(pooled)
        return logit


class DenseNoDown(NoDown):
    """The linear layer at every place, then the mean of the map of logits."""

    def features(self, x: Tensor) -> Tensor:
        cells = NoDownTrunk.forward(self, x)
        return F.conv2d(cells, self.fc.weight[:, :, None, None], self.fc.bias)  # [N, 1, H', W']

    def head(self, pooled: Tensor) -> Tensor:
        return pooled
