"""FerretNet-B: the model of the paper's tables, three times as wide as S."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from trtdet.build.detectors import ferretnet
from trtdet.build.detectors.spec import Variant


def build_network(variant: Variant) -> nn.Module:
    """The B model: width 96."""
    return ferretnet.FerretNet(width=96)


SPEC = replace(
    ferretnet.SPEC,
    name="ferretnet-b",
    title="FerretNet-B (median, 3x3)",
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
    note="Reads up-sampling traces, which JPEG at any common quality erases.",
)
