"""AlignedForensics: a ResNet-50 without down-sampling, trained on images and their twins."""

from __future__ import annotations

from torch import nn

from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Variant
from trtdet.build.nodown import REACH, NoDown
from trtdet.build.pooled import fold_pooled
from trtdet.engine.geometry import NATIVE, Geometry
from trtdet.engine.steps import CenterCrop

GEOMETRIES = {"native": NATIVE, "crop-224": Geometry.of(CenterCrop(224, 224))}


def build_network(variant: Variant) -> nn.Module:
    """Every checkpoint has the same network."""
    return NoDown()


_WHERE = "Google Drive, linked in the repository's README"

SPEC = DetectorSpec(
    name="aligned",
    title="Dataset alignment, ResNet-50 NoDown",
    paper="Rajan et al., Aligned Datasets Improve Detection of Latent Diffusion-Generated Images, "
    "ICLR 2025, arXiv 2410.11835",
    repository="github.com/AniSundar18/AlignedForensics @ e4cc011",
    licence="Apache-2.0",
    geometries=GEOMETRIES,
    normalization=IMAGENET,
    variants=(
        Variant("ours-sync", "real images and their reconstructions, same crops", where=_WHERE),
        Variant("ours", "real images and their reconstructions", where=_WHERE),
        Variant("ours-sync-shaders", "as ours-sync, then shader images", where=_WHERE),
        Variant("ours-shaders", "as ours, then shader images", where=_WHERE),
        Variant("corvi-plus", "Stay-Positive on Corvi's set", where=_WHERE),
        Variant("rajan-plus", "Stay-Positive on the aligned set", where=_WHERE),
    ),
    network=build_network,
    simplify=fold_pooled,
    reach=REACH,
    note="The threshold of the shaders models was set on validation images that are not published.",
)
