"""UnivFD: one linear layer on CLIP's image embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtdet.build.clip_tower import Mlp, TowerOutput
from trtdet.build.detectors.spec import CLIP, DetectorSpec, Variant
from trtdet.build.tower_shapes import TowerConfig
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop
from trtdet.errors import CheckpointError


class UnivfdHead(nn.Module):
    """`TowerOutput` -> float32 [N, 1]: the rest of the tower for the class token, and a layer.

    `from_tower` says which of its tensors are the tower's, and under what names.
    """

    def __init__(self, tower: TowerConfig, output: int):
        super().__init__()
        self.mlp = Mlp(tower.width)  # of the last block
        self.ln_post = nn.LayerNorm(tower.width)
        self.proj = nn.Parameter(torch.empty(tower.width, output))
        self.weight = nn.Parameter(torch.empty(1, output))  # of the layer, as the file names it
        self.bias = nn.Parameter(torch.empty(1))
        last = f"transformer.resblocks.{tower.layers - 1}."
        self.from_tower = {
            key: last + key if key.startswith("mlp.") else key
            for key in self.state_dict()
            if key not in ("weight", "bias")
        }

    def forward(self, tower: TowerOutput) -> Tensor:
        token = tower.last + self.mlp(tower.taps[:, -1])
        embedding = self.ln_post(token) @ self.proj  # [N, output], not normalised
        return F.linear(embedding, self.weight, self.bias)


def build_head(
    variant: Variant, tower: TowerConfig, tensors: Mapping[str, Tensor] | None
) -> nn.Module:
    """The head for such a tower. Raises CheckpointError when it was trained on another."""
    if tower.output is None:
        raise CheckpointError(
            "UnivFD reads CLIP's image embedding, and this tower has no projection: give the whole "
            "CLIP model (Hugging Face's CLIPModel, not CLIPVisionModel) as --backbone"
        )
    if tensors is not None and "weight" in tensors and tensors["weight"].dim() == 2:
        width = tensors["weight"].shape[1]
        if width != tower.output:
            raise CheckpointError(
                f"this UnivFD layer reads {width} numbers, and the tower gives {tower.output}: "
                "give the --backbone that it was trained on (768 are ViT-L/14's, 512 ViT-B/32's)"
            )
    return UnivfdHead(tower, tower.output)


SPEC = DetectorSpec(
    name="univfd",
    title="UnivFD",
    paper="Ojha et al., Towards Universal Fake Image Detectors that Generalize Across Generative "
    "Models, CVPR 2023, arXiv 2302.10174",
    repository="github.com/WisconsinAIVision/UniversalFakeDetect @ 76a0e3e60a8a",
    licence="MIT (the layer and CLIP's tower)",
    geometries={"crop-224": Geometry.of(CenterCrop(224, 224))},
    normalization=CLIP,
    variants=(
        Variant(
            name="progan",
            trained_on="ProGAN, 20 classes",
            file="fc_weights.pth",
            url="https://github.com/WisconsinAIVision/UniversalFakeDetect/raw/76a0e3e60a8a/"
            "pretrained_weights/fc_weights.pth",
            git_blob="2a8efc8e238bf5a491e4fd5999655ed5eb3bbb72",
        ),
    ),
    head=build_head,
    backbone="clip-vit-l14",
    note="Judges the central 224 pixels, whatever the image's size.",
)
