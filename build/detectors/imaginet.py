"""ImagiNet: a NoDown ResNet-50 trained by self-contrast, and a classifier on its mean features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Layout, Variant
from trtdet.build.fold import fold_batch_norms
from trtdet.build.nodown import CHANNELS, REACH, NoDownTrunk
from trtdet.build.pooled import Pooled, PooledNetwork
from trtdet.engine.geometry import NATIVE, Geometry
from trtdet.engine.steps import CenterCrop, ReflectPad


def build_network(variant: Variant) -> nn.Module:
    """There is one."""
    return ImagiNet()


class ImagiNet(PooledNetwork):
    """float32 [N, 3, H, W], normalised -> float32 [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = NoDownTrunk(shortcut="shortcut")
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(CHANNELS),
            nn.Linear(CHANNELS, 1024),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(1024, 1),
        )

    def features(self, x: Tensor) -> Tensor:
        cells: Tensor = self.encoder(x)
        return cells

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.classifier(pooled)
        return logit


def simplify(network: nn.Module) -> nn.Module:
    """The same function: every BatchNorm folded, the classifier's into the layer behind it."""
    assert isinstance(network, ImagiNet)
    norm, first, relu, _dropout, last = network.classifier
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(first, nn.Linear)
    head = nn.Sequential(_with_norm_before(first, norm), relu, last)
    return Pooled(fold_batch_norms(network.encoder), head)


def _with_norm_before(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    weight = linear.weight.double()
    folded = nn.Linear(linear.in_features, linear.out_features)
    folded.weight = nn.Parameter((weight * scale).float())
    folded.bias = nn.Parameter((linear.bias.double() + weight @ shift).float())
    return folded


SPEC = DetectorSpec(
    name="imaginet",
    title="ImagiNet, SelfCon ResNet-50 NoDown",
    paper="Boychev and Cholakov, ImagiNet: A Multi-Content Benchmark for Synthetic Image "
    "Detection, 2024, arXiv 2407.20020",
    repository="github.com/delyan-boychev/imaginet @ d87b53a",
    licence="none given for the code: ask the authors before you redistribute",
    geometries={
        "native": NATIVE,
        # The paper's practical set: albumentations' PadIfNeeded, then its CenterCrop.
        "reflect-448": Geometry.of(ReflectPad(448, 448), CenterCrop(448, 448, halves="down")),
    },
    normalization=IMAGENET,
    variants=(
        Variant(
            "imaginet",
            "ImagiNet (imaginet_weights.pt)",
            where="Google Drive, linked in the repository's README",
        ),
    ),
    network=build_network,
    simplify=simplify,
    reach=REACH,
    layout=Layout(
        sections=("model", "classifier"),
        training_only=("encoder.selfcon_layer.", "head.", "sub_heads."),
    ),
    note="The paper calibrates its logits per test suite (Platt scaling) and publishes neither a "
    "nor b: fit them on images of your own, and give them with --platt.",
)
