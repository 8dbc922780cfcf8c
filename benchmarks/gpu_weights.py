"""Detectors with random weights, for speed and rounding: what they say of an image means nothing.

Everything here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trtdet.build.clip_tower import ClipTower
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.load import TowerDetectors
from trtdet.build.tower_shapes import TowerConfig, tower_shapes

# The towers of `trtdet.build.weights_store.CLIP_TOWERS`.
TOWERS = {
    "clip-vit-l14": TowerConfig(
        width=1024, layers=24, heads=16, patch=14, image_size=224, output=768
    ),
    "clip-vit-b32": TowerConfig(
        width=768, layers=12, heads=12, patch=32, image_size=224, output=512
    ),
}

_SEED = 20240517


def random_network(spec: DetectorSpec, variant: Variant, device: str = "cpu") -> nn.Module:
    """float32 [N, 3, H, W], normalised -> float32 [N, 1]; drawn on the device, which is quicker."""
    with torch.device(device):
        if spec.network is not None:
            network = spec.network(variant)
        else:
            assert spec.head is not None  # a detector has a network or a head
            config = TOWERS[spec.backbone]
            network = TowerDetectors(ClipTower(config), [spec.head(variant, config, None)])
    network = network.to(device)
    network.load_state_dict(random_tensors(network.state_dict(), device))
    return network.eval()


def write_checkpoint(
    spec: DetectorSpec, variant: Variant, folder: Path
) -> tuple[Path, Path | None]:
    """The weights of a detector and, for a head, its tower's, as `trtdet build` takes them."""
    weights, backbone = folder / f"{spec.name}.pth", folder / f"{spec.backbone}.pth"
    if spec.network is not None:
        torch.save(random_tensors(spec.network(variant).state_dict()), weights)
        return weights, None
    assert spec.head is not None
    config = TOWERS[spec.backbone]
    head = spec.head(variant, config, None)
    shared = getattr(head, "from_tower", {})
    own = {key: value for key, value in head.state_dict().items() if key not in shared}
    torch.save(random_tensors(own), weights)
    shapes = {key: torch.empty(shape) for key, shape in tower_shapes(config).items()}
    torch.save(random_tensors(shapes), backbone)
    return weights, backbone


def random_tensors(state: Mapping[str, Tensor], device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of these shapes that keep activations near 1, as training does.

    On one device they are always the same.

    A residual branch adds a third of what runs beside it, or sixteen of them would add up to 10^5.
    """
    generator = torch.Generator(device).manual_seed(_SEED)
    return {key: _random(key, tensor, generator) for key, tensor in state.items()}


def _random(key: str, like: Tensor, generator: torch.Generator) -> Tensor:
    def drawn() -> Tensor:
        return torch.randn(like.shape, generator=generator, device=generator.device)

    if not like.is_floating_point():
        return like.clone()
    if key.endswith("running_var"):
        return 1.0 + 0.2 * torch.rand(like.shape, generator=generator, device=generator.device)
    if like.dim() > 1:
        scale = math.sqrt(2.0 / like[0].numel())
        return scale * drawn()
    centre = 1.0 if key.endswith(("weight", "deviation")) else 0.0
    values = centre + 0.2 * drawn()
    return 0.3 * values if key.endswith("bn3.weight") else values
