"""GANimageDetection: the first of the NoDown ResNet-50s, with a tiling of its own."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from trtdet.build.detectors.aligned import GEOMETRIES
from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Variant
from trtdet.build.nodown import REACH, NoDown
from trtdet.build.pooled import fold_pooled
from trtdet.engine.tiles import Blocks


def build_network(variant: Variant) -> nn.Module:
    """Both checkpoints have the same network."""
    return NoDown()


_WHERE = "www.grip.unina.it, linked in the repository's README"

SPEC = DetectorSpec(
    name="gan-nodown",
    title="GANimageDetection, ResNet-50 NoDown",
    paper="Gragnaniello et al., Are GAN generated images easy to detect? A critical analysis of "
    "the state-of-the-art, ICME 2021, arXiv 2104.02617",
    repository="github.com/grip-unina/GANimageDetection @ 543943c",
    licence="GRIP-UNINA: non-profit use only",
    geometries=GEOMETRIES,
    normalization=IMAGENET,
    variants=(
        Variant("progan", "ProGAN (gandetection_resnet50nodown_progan)", where=_WHERE),
        Variant("stylegan2", "StyleGAN2 (gandetection_resnet50nodown_stylegan2)", where=_WHERE),
    ),
    network=build_network,
    simplify=fold_pooled,
    reach=replace(REACH, blocks=Blocks(over=1536, side=1024)),
    note="Images with both sides above 1536 are cut into tiles of 1024, each scored by itself and "
    "averaged by area, as the authors' code does.",
)
