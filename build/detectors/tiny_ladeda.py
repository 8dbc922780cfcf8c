"""Tiny-LaDeDa: 1,297 parameters that judge 5x5 patches of a fixed residual and average them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Variant
from trtdet.build.fold import conv_from, fold_batch_norms
from trtdet.build.residuals import cell_difference
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import Stretch

FrontEnd = Callable[[Tensor], Tensor]  # [N, 3, H, W] -> [N, 3, H, W]

# Cross-correlated with each channel, zero padding 1.
LEFT_DIAGONAL = ((0.0, 1.0, 2.0), (-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0))


def build_network(variant: Variant) -> nn.Module:
    """The front end is not in the checkpoint: the variant names it."""
    front_ends: dict[str, Callable[[], nn.Module]] = {
        "npr": CellDifference,
        "left_diag": DiagonalGradient,
    }
    return TinyLadeda(front_ends[variant.front_end]())


class CellDifference(nn.Module):
    """NPR's front end without its factor 2/3."""

    def forward(self, x: Tensor) -> Tensor:
        return cell_difference(x)


class DiagonalGradient(nn.Module):
    """A fixed 3x3 kernel on each channel."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.tensor(LEFT_DIAGONAL).expand(3, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=3)


class Block(nn.Module):
    """1x1 and an unpadded 3x3 at stride 2, without a residual connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class TinyLadeda(nn.Module):
    """float32 [N, 3, H, W], normalised -> float32 [N, 1]."""

    def __init__(self, front_end: nn.Module):
        super().__init__()
        self.front_end = front_end
        self.conv1 = nn.Conv2d(3, 8, 1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8))
        self.fc = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(self.front_end(x)))  # [N, 8, H - 2, W - 2]
        x = self.layer1(F.relu(self.bn1(x)))  # [N, 8, 126, 126] at 256 x 256
        # The mean of the rows' logits. A runtime may add all 15,876 numbers of a map one by one, as
        # AvgPool2d does, and move the logit by thousandths; the layer between keeps means apart.
        rows = self.fc(x.mean(3).transpose(1, 2))  # [N, 126, 1]
        logit: Tensor = rows.mean(1)
        return logit


def simplify(network: nn.Module) -> nn.Module:
    """The same function: BatchNorm folded, the first two convolutions as one.

    The gradient kernel could join them as one 5x5; OpenVINO takes a quarter longer over that.
    """
    folded = fold_batch_norms(network)
    points, patches = folded.get_submodule("conv1"), folded.get_submodule("conv2")
    mix = points.get_parameter("weight").detach().double()[:, :, 0, 0]  # [8, 3]
    weight = patches.get_parameter("weight").detach().double()  # [8, 8, 3, 3]
    bias = patches.get_parameter("bias").detach().double()
    merged = torch.einsum("omhw,mi->oihw", weight, mix)  # no padding in between: exact
    folded.set_submodule("conv1", nn.Identity())
    folded.set_submodule("conv2", conv_from(merged, bias, padding=0))
    return folded


_WEIGHTS = (
    "https://github.com/barcavia/RealTime-DeepfakeDetection-in-the-RealWorld/raw/e734562bbb67/"
    "weights/Tiny_LaDeDa/"
)

SPEC = DetectorSpec(
    name="tiny-ladeda",
    title="Tiny-LaDeDa",
    paper="Cavia et al., Real-Time Deepfake Detection in the Real-World, 2024, arXiv 2406.09398",
    repository="github.com/barcavia/RealTime-DeepfakeDetection-in-the-RealWorld @ e734562bbb67",
    licence="Yissum Software Research License: research only, no commercial use, no redistribution",
    geometries={"stretch-256": Geometry.of(Stretch(256, 256, "bilinear"))},
    normalization=IMAGENET,
    variants=(
        Variant(
            name="forensynth",
            file="ForenSynth_Tiny_LaDeDa.pth",
            url=_WEIGHTS + "ForenSynth_Tiny_LaDeDa.pth",
            git_blob="71c15cfeeec8cd8add63681d8ae32f23f07f1c8e",
            trained_on="ForenSynths (ProGAN)",
            fingerprint="093a31c6b934b9a258f3fe59a2323d7e4fa2e12da2257904805dc0bf3e55ed98",
            front_end="npr",
        ),
        Variant(
            name="wildrf",
            file="WildRF_Tiny_LaDeDa.pth",
            url=_WEIGHTS + "WildRF_Tiny_LaDeDa.pth",
            git_blob="f859d0a45dea6eba0f2e350ffdb5df6d0db13731",
            trained_on="WildRF (images from social networks)",
            fingerprint="022710ab68dc7e4bed33698867e2a18771ff958a47f3fbe6e2935d672686aeb3",
            front_end="left_diag",
        ),
    ),
    network=build_network,
    simplify=simplify,
    tolerance=1e-3,  # large sums that cancel; OpenVINO stays within 1e-5
    note="The checkpoints were trained with different front ends, and neither with the default of "
    "the authors' code: their BatchNorm statistics identify NPR (forensynth) and left_diag "
    "(wildrf). trtdet knows which checkpoint it has by its tensors.",
)
