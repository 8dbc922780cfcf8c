"""The networks that are compared: their input in trtdet, and the same by a paper's transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtdet.benchmarks.peers.paper_script import (
    Picture,
    Transform,
    center_crop,
    normalize,
    resize,
    to_tensor,
)
from trtdet.build.detectors.registry import find_detector
from trtdet.build.detectors.spec import CLIP, IMAGENET, Normalization

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Net:
    """One network."""

    title: str
    model: str
    geometry: str
    transform: Transform
    batches: tuple[int, ...]  # that every contender is run at
    variant: str | None = None

    def load(self, weights: Path, backbone: Path | None) -> nn.Module:
        """The paper's network in torch, with its weights; CLIP's tower as upstream runs it."""
        from trtdet.benchmarks.peers.paper_tower import PaperTower
        from trtdet.build.load import load_detectors

        spec = find_detector(self.model)
        loaded = load_detectors([spec], [weights], [self.variant], backbone)
        network: Any = loaded.network
        if loaded.tower is not None:
            network.tower = PaperTower(network.tower, loaded.tower.config)
        made: nn.Module = network.eval()
        return made


def _crop(size: int, normalization: Normalization) -> Transform:
    def transform(image: Picture) -> Tensor:
        cropped = to_tensor(center_crop(image, size))
        return normalize(cropped, normalization.mean, normalization.std)

    return transform


def _stretch(size: int, normalization: Normalization) -> Transform:
    def transform(image: Picture) -> Tensor:
        stretched = to_tensor(resize(image, size, size))
        return normalize(stretched, normalization.mean, normalization.std)

    return transform


# A NoDown network at native resolution takes one image a batch; a crop can be run by every peer.
NETS: Mapping[str, Net] = {
    "rine": Net("RINE, ViT-L/14", "rine", "crop-224", _crop(224, CLIP), (1, 4), "2class"),
    "npr": Net("NPR", "npr", "stretch-256", _stretch(256, IMAGENET), (1, 16)),
    "nodown": Net("NoDown ResNet-50 (`aligned`)", "aligned", "crop-224",
                  _crop(224, IMAGENET), (1, 4), "ours-sync"),
    "ferretnet": Net("FerretNet-S", "ferretnet-s", "crop-256", _crop(256, CLIP), (1, 16)),
}  # fmt: skip
