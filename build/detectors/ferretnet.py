"""FerretNet-S: local pixel dependencies (a masked median) read by a small separable network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.ferretnet_compact import compact
from trtdet.build.detectors.spec import CLIP, DetectorSpec, Reach, Variant
from trtdet.build.fold import flush_denormals, fold_batch_norms
from trtdet.build.pooled import PooledNetwork
from trtdet.build.residuals import masked_median_difference
from trtdet.engine.geometry import NATIVE, Geometry
from trtdet.engine.steps import CenterCrop


def build_network(variant: Variant) -> nn.Module:
    """The S model: width 32."""
    return FerretNet(width=32)


class ParallelConvs(nn.Module):
    """Two grouped 3x3, one of them dilated, added and mixed by a 1x1."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(
            channels_in, channels_out, 3, stride, padding=1, groups=channels_in, bias=False
        )
        self.conv2 = nn.Conv2d(
            channels_in, channels_out, 3, stride, 2, dilation=2, groups=channels_in, bias=False
        )
        self.conv3 = nn.Conv2d(channels_out, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(self.conv1(x) + self.conv2(x))
        return y


class SeparableConv(nn.Module):
    """A depthwise 3x3, then a 1x1."""

    def __init__(self, channels: int):
        super().__init__()
        self.depth_wise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.point_wise = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.point_wise(self.depth_wise(x))
        return y


class Block(nn.Module):
    """[N, channels_in, H, W] -> [N, channels_out, H / stride, W / stride]."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            ParallelConvs(channels_in, channels_out, stride),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            SeparableConv(channels_out),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class FerretNet(PooledNetwork):
    """float32 [N, 3, H, W], normalised -> float32 [N, 1]."""

    def __init__(self, width: int):
        super().__init__()
        self.cbr1 = _conv_bn_relu(3, width // 2, stride=1)
        self.cbr2 = _conv_bn_relu(width // 2, width, stride=2)
        self.feature = nn.Sequential(
            nn.Sequential(
                Block(width, 2 * width, stride=2),
                Block(2 * width, 2 * width, stride=1),
            ),
            nn.Sequential(
                Block(2 * width, 4 * width, stride=2),
                Block(4 * width, 4 * width, stride=1),
            ),
            nn.Conv2d(4 * width, 4 * width, 1, bias=False),
        )
        self.logit = nn.Sequential(nn.Dropout(), nn.Linear(4 * width, 1))

    def features(self, x: Tensor) -> Tensor:
        x = masked_median_difference(x)
        y: Tensor = self.feature(self.cbr2(self.cbr1(x)))  # [N, 4 * width, H / 8, W / 8]
        return y

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.logit(pooled)
        return logit


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def simplify(network: nn.Module) -> nn.Module:
    """The same function: BatchNorm folded, dead channels left out, parallel layers merged."""
    return flush_denormals(compact(fold_batch_norms(network)))


# The paper's tests, and its demo.
GEOMETRIES = {"crop-256": Geometry.of(CenterCrop(256, 256)), "native": NATIVE}

# 1 pixel to each side for the median and each of the stem's, then 2 and 1 cells in every block: at
# steps of 2, 4, 4 and 8 pixels for the dilated 3x3, and of 4, 4, 8 and 8 for the depthwise one.
REACH = Reach(
    receptive_field=1 + 2 * (3 + 2 * (2 + 4 + 4 + 8) + (4 + 4 + 8 + 8)),
    stride=8,
    tile=1024,
    pixel_bytes=250,
)

SPEC = DetectorSpec(
    name="ferretnet-s",
    title="FerretNet-S (median, 3x3)",
    paper="Liang et al., FerretNet: Efficient Synthetic Image Detection via Local Pixel "
    "Dependencies, NeurIPS 2025, arXiv 2509.20890",
    repository="github.com/xigua7105/FerretNet @ e92796c1a2fb",
    licence="Apache-2.0",
    geometries=GEOMETRIES,
    normalization=CLIP,
    variants=(
        Variant(
            name="4cls",
            file="ferretnet-s-median-3.pth",
            url="https://github.com/xigua7105/FerretNet/raw/e92796c1a2fb/"
            "checkpoints/4cls_ckpt/ferretnet-s-median-3.pth",
            git_blob="1673e782284c2f7c3674fc641217500f7d7e6764",
            trained_on="ProGAN, 4 classes (car, cat, chair, horse)",
            fingerprint="d07ee403519c06780bcf2b21ca4fe3bfba020638a50ccc256f9c1b4a204a2f87",
        ),
    ),
    network=build_network,
    simplify=simplify,
    reach=REACH,
    note="The paper's tables are of FerretNet-B, a wider network; none was published for S. Reads "
    "up-sampling traces, which JPEG at any common quality erases.",
)
