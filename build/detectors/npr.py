"""NPR: neighbouring-pixel relationships in 2x2 cells, read by a truncated ResNet-50."""

from __future__ import annotations

from torch import Tensor, nn

from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Reach, Variant
from trtdet.build.pooled import fold_pooled
from trtdet.build.residuals import cell_difference
from trtdet.build.resnet import TruncatedResNet
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, Repeat, Stretch, Trim


def build_network(variant: Variant) -> nn.Module:
    """Every released checkpoint has the same network."""
    return Npr()


class Npr(TruncatedResNet):
    """float32 [N, 3, H, W], normalised, even H and W -> float32 [N, 1]."""

    def front_end(self, x: Tensor) -> Tensor:
        return cell_difference(x) * 2.0 / 3.0  # two roundings, as the paper's code has them


# The paper's tests, its validation, SIDBench, AIGCDetectBenchmark, GenImage.
GEOMETRIES = {
    "stretch-256": Geometry.of(Stretch(256, 256, "bilinear")),
    "stretch-256-crop-224": Geometry.of(Stretch(256, 256, "bilinear"), CenterCrop(224, 224)),
    "crop-224": Geometry.of(CenterCrop(224, 224)),
    "native": Geometry.of(Trim(2)),
    "repeat-crop-224": Geometry.of(Repeat(224, 224), CenterCrop(224, 224)),
}

# 87 pixels behind the differences, and the rest of the 2x2 cells that those begin and end in.
REACH = Reach(receptive_field=89, stride=8, tile=1024, pixel_bytes=250)

SPEC = DetectorSpec(
    name="npr",
    title="NPR",
    paper="Tan et al., Rethinking the Up-Sampling Operations in CNN-based Generative Network for "
    "Generalizable Deepfake Detection, CVPR 2024, arXiv 2312.10461",
    repository="github.com/chuangchuangtan/NPR-DeepfakeDetection @ 73cde1ced212",
    licence="none given: the authors published no licence, ask them before you redistribute",
    geometries=GEOMETRIES,
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
    simplify=fold_pooled,
    reach=REACH,
    note="Reads up-sampling traces: JPEG and added noise erase them. Its papers feed images whose "
    "native size is 256x256; others are stretched.",
)
