"""NPR: neighbouring-pixel relationships in 2x2 cells, read by a truncated ResNet-50."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Variant
from trtdet.build.fold import fold_batch_norms
from trtdet.build.residuals import cell_difference
from trtdet.build.resnet import EXPANSION, bottleneck_stage
from trtdet.engine.geometry import Stretch


def build_network(variant: Variant) -> nn.Module:
    """Every released checkpoint has the same network."""
    return Npr()


class Npr(nn.Module):
    """float32 [N, 3, H, W], normalised, even H and W -> float32 [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = bottleneck_stage(64, planes=64, blocks=3, stride=1)
        self.layer2 = bottleneck_stage(64 * EXPANSION, planes=128, blocks=4, stride=2)
        self.fc1 = nn.Linear(128 * EXPANSION, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = cell_difference(x) * 2.0 / 3.0  # two roundings, as the paper's code has them
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 64, H / 2, W / 2]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer2(self.layer1(x))  # [N, 512, H / 8, W / 8]
        logit: Tensor = self.fc1(x.mean((2, 3)))
        return logit


def simplify(network: nn.Module) -> nn.Module:
    """The same function, BatchNorm folded.

    The difference and 2/3 could join conv1 as one 4x4 at stride 2: no faster, and it cancels worse.
    """
    return fold_batch_norms(network)


SPEC = DetectorSpec(
    name="npr",
    title="NPR",
    paper="Tan et al., Rethinking the Up-Sampling Operations in CNN-based Generative Network for "
    "Generalizable Deepfake Detection, CVPR 2024, arXiv 2312.10461",
    repository="github.com/chuangchuangtan/NPR-DeepfakeDetection @ 73cde1ced212",
    licence="none given: the authors published no licence, ask them before you redistribute",
    geometry=Stretch(256, 256, "bilinear"),
    normalization=IMAGENET,
    variants=(
        Variant(
            name="npr",
            file="NPR.pth",
            url="https://github.com/chuangchuangtan/NPR-DeepfakeDetection/raw/73cde1ced212/NPR.pth",
            git_blob="2430d34a6d6a1143d46d4276a05536770b1a2a97",
            trained_on="not stated beside the file; the paper trains on ProGAN",
        ),
        Variant(
            name="progan-4class",
            file="model_epoch_last_3090.pth",
            url="https://github.com/chuangchuangtan/NPR-DeepfakeDetection/raw/73cde1ced212/"
            "model_epoch_last_3090.pth",
            git_blob="f3efe21a3cb98da75b50451c3891ad0d2fa9fb2b",
            trained_on="ProGAN, 4 classes; the checkpoint of the AIGCDetectBenchmark table",
        ),
    ),
    network=build_network,
    simplify=simplify,
    note="Reads up-sampling traces: JPEG and added noise erase them. Its papers feed images whose "
    "native size is 256x256; others are stretched.",
)
