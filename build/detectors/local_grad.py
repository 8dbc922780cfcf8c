"""Local gradients: NPR's trunk on the angle between the two differences of neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.detectors.npr import GEOMETRIES, REACH
from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Variant
from trtdet.build.pooled import fold_pooled
from trtdet.build.resnet import TruncatedResNet
from trtdet.engine.geometry import NATIVE

_STEEPEST = 100.0  # ratios beyond are taken for noise, and set to 0


def build_network(variant: Variant) -> nn.Module:
    """There is one."""
    return LocalGradient()


class LocalGradient(TruncatedResNet):
    """float32 [N, 3, H, W], normalised -> float32 [N, 1]."""

    nudge: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Where neighbours are equal it makes 0 / 0 a number. As a scalar in the graph, exporters
        # take it for a 0 and drop the addition.
        self.register_buffer("nudge", torch.full((1, 3, 1, 1), 1e-9), persistent=False)

    def front_end(self, x: Tensor) -> Tensor:
        across = F.pad(x[..., 1:], (0, 1)) - x + self.nudge  # 0 - x in the last column
        down = F.pad(x[..., 1:, :], (0, 0, 0, 1)) - x
        ratio = down / across
        ratio = torch.where(ratio.abs() > _STEEPEST, torch.zeros_like(ratio), ratio)
        return (torch.atan(ratio) / (math.pi / 2) + 1.0) / 2.0


SPEC = DetectorSpec(
    name="local-grad",
    title="Local gradients on NPR's trunk",
    paper="none; after Tan et al., CVPR 2024, arXiv 2312.10461",
    repository="github.com/vohoaidanh/AIGDetection @ 8a21128",
    licence="none given: the authors published no licence, ask them before you redistribute",
    geometries={**GEOMETRIES, "native": NATIVE},
    normalization=replace(IMAGENET, by_table=True),
    variants=(
        Variant("local-grad", "4 classes with Gaussian blur", where="the authors, who published "
                "no file"),
    ),
    network=build_network,
    simplify=fold_pooled,
    reach=REACH,
    note="A ratio of differences of neighbours: a change of one level, such as a decoder's "
    "rounding, turns it where they are nearly equal.",
)  # fmt: skip
