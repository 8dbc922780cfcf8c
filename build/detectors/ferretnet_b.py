"""FerretNet-B: the model of the paper's tables, three times as wide as S."""

from __future__ import annotations

from torch import nn

from trtdet.build.detectors.ferretnet import GEOMETRIES, REACH, FerretNet, simplify
from trtdet.build.detectors.spec import CLIP, DetectorSpec, Variant


def build_network(variant: Variant) -> nn.Module:
    """The B model: width 96."""
    return FerretNet(width=96)


SPEC = DetectorSpec(
    name="ferretnet-b",
    title="FerretNet-B (median, 3x3)",
    paper="Liang et al., FerretNet: Efficient Synthetic Image Detection via Local Pixel "
    "Dependencies, NeurIPS 2025, arXiv 2509.20890",
    repository="github.com/xigua7105/FerretNet @ e92796c1a2fb",
    licence="Apache-2.0",
    geometries=GEOMETRIES,
    normalization=CLIP,
    variants=(
        Variant(
            name="4cls",
            file="ferretnet-b-median-3.pth",
            url="https://github.com/xigua7105/FerretNet/raw/e92796c1a2fb/"
            "checkpoints/4cls_ckpt/ferretnet-b-median-3.pth",
            git_blob="d2f32d2983f4422b184a14b59e48fa6d48edc8f9",
            trained_on="ProGAN, 4 classes (car, cat, chair, horse)",
        ),
    ),
    network=build_network,
    simplify=simplify,
    reach=REACH,
    note="Reads up-sampling traces, which JPEG at any common quality erases.",
)
