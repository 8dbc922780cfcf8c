"""RINE: the class token after every block of CLIP's tower, weighed per channel."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.clip_tower import TowerOutput
from trtdet.build.detectors.spec import CLIP, DetectorSpec, Variant
from trtdet.build.tower_shapes import TowerConfig
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, Stretch
from trtdet.errors import CheckpointError

# The released heads: layers of each projection, and their width.
_SHAPES = {"4class": (2, 1024), "1class": (4, 1024), "2class": (4, 128), "ldm": (4, 1024)}


class RineHead(nn.Module):
    """`TowerOutput` -> float32 [N, 1]."""

    def __init__(self, tower: TowerConfig, projections: int, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, tower.layers, width))
        self.proj1 = _projection(tower.width, width, projections)
        self.proj2 = _projection(width, width, projections)
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(width, 1),
        )

    def forward(self, tower: TowerOutput) -> Tensor:
        x = self.proj1(tower.taps)  # [N, blocks, width]
        importance = F.softmax(self.alpha, dim=1)  # over the blocks, for each channel
        logit: Tensor = self.head(self.proj2((importance * x).sum(1)))
        return logit


def _projection(width_in: int, width: int, layers: int) -> nn.Sequential:
    """Dropout, then `layers` of Linear, ReLU and Dropout: the keys are 1, 4, 7, ..."""
    modules: list[nn.Module] = [nn.Dropout()]
    for index in range(layers):
        modules += [nn.Linear(width if index else width_in, width), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*modules)


def build_head(
    variant: Variant, tower: TowerConfig, tensors: Mapping[str, Tensor] | None
) -> nn.Module:
    """The head for these tensors. Raises CheckpointError when it belongs to another tower."""
    projections, width = _SHAPES[variant.name]
    if tensors is not None:
        alpha, first = tensors.get("alpha"), tensors.get("proj1.1.weight")
        if alpha is None or first is None or alpha.dim() != 3 or first.dim() != 2:
            raise CheckpointError(
                "these are no weights of a RINE head: alpha [1, blocks, D] and proj1.1.weight "
                "[D, width] are missing. Give one of the released model_*_trainable.pth"
            )
        fits = (alpha.shape[1], first.shape[1])
        if fits != (tower.layers, tower.width):
            raise CheckpointError(
                f"this RINE head reads {fits[0]} blocks of width {fits[1]}, and the tower has "
                f"{tower.layers} of width {tower.width}: give the --backbone that it was trained "
                "on (24 blocks of 1024 are ViT-L/14, 12 of 768 are ViT-B/32)"
            )
        width = int(alpha.shape[2])
        projections = sum(bool(re.fullmatch(r"proj1\.\d+\.weight", key)) for key in tensors)
    return RineHead(tower, projections, width)


_WEIGHTS = "https://github.com/mever-team/rine/raw/9b7fd5857cc2/ckpt/"


def _variant(name: str, trained_on: str, git_blob: str, fingerprint: str | None = None) -> Variant:
    file = f"model_{name}_trainable.pth"
    return Variant(name, trained_on, file, _WEIGHTS + file, git_blob, fingerprint)


SPEC = DetectorSpec(
    name="rine",
    title="RINE",
    paper="Koutlis and Papadopoulos, Leveraging Representations from Intermediate Encoder-blocks "
    "for Synthetic Image Detection, ECCV 2024, arXiv 2402.19091",
    repository="github.com/mever-team/rine @ 9b7fd5857cc2",
    licence="Apache-2.0 (the head); MIT (CLIP's tower)",
    geometries={
        "crop-224": Geometry.of(CenterCrop(224, 224)),
        "stretch-256-crop-224": Geometry.of(Stretch(256, 256), CenterCrop(224, 224)),
    },
    normalization=CLIP,
    variants=(
        _variant("4class", "ProGAN: car, cat, chair, horse",
                 "bf5cd4053b5eaf64a0bd52cdb6bd0dbd9a8bc457"),
        _variant("1class", "ProGAN: horse", "802e8dce29925de10a8f4bfd96c4b627d0c0cdfe"),
        _variant("2class", "ProGAN: chair, horse", "b8418b5884fd1fc1dba79bea91f41ab2341673d8"),
        _variant("ldm", "latent diffusion", "6b225b2aeae4f52e99a7fb675d8bcb736aea4a2e"),
    ),
    head=build_head,
    backbone="clip-vit-l14",
    note="Judges the central 224 pixels, whatever the image's size. The paper's numbers come from "
    "a tower in half precision; these scores are of one in float32.",
)  # fmt: skip
