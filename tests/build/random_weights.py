"""Checkpoints of random weights for every detector, laid out as its authors' files are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trtdet.build.detectors.registry import find_detector
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.tower_shapes import TowerConfig, tower_shapes

# A CLIP tower as the heads need it, but for its depth and width.
REDUCED = TowerConfig(width=128, layers=3, heads=2, patch=32, image_size=224, output=64)


def random_tensors(state: Mapping[str, Tensor], seed: int = 11) -> dict[str, Tensor]:
    """Tensors of these shapes that keep activations near 1, as training does.

    A residual branch adds a third of what runs beside it, or sixteen of them would add up to 10^5.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            tensors[key] = tensor.clone()
        elif key.endswith("running_var"):
            tensors[key] = 1.0 + 0.2 * torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() > 1:
            scale = (2.0 / tensor[0].numel()) ** 0.5
            tensors[key] = scale * torch.randn(tensor.shape, generator=generator)
        else:
            centre = 1.0 if key.endswith(("weight", "deviation")) else 0.0
            tensors[key] = centre + 0.2 * torch.randn(tensor.shape, generator=generator)
            if key.endswith("bn3.weight"):
                tensors[key] *= 0.3
    return tensors


def seeded(network: nn.Module, seed: int = 11) -> nn.Module:
    """The network with such weights, in place."""
    network.load_state_dict(random_tensors(network.state_dict(), seed))
    return network.eval()


def random_tower(config: TowerConfig = REDUCED, seed: int = 12) -> dict[str, Tensor]:
    """A tower's tensors by canonical key."""
    shapes = {key: torch.empty(shape) for key, shape in tower_shapes(config).items()}
    return random_tensors(shapes, seed)


def find_variant_of(spec: DetectorSpec, name: str) -> Variant:
    """The variant called `name`."""
    return next(each for each in spec.variants if each.name == name)


def head_tensors(spec: DetectorSpec, variant: Variant, config: TowerConfig) -> dict[str, Tensor]:
    """What a head's own file holds: all but the tensors that it takes from the tower."""
    assert spec.head is not None
    head = spec.head(variant, config, None)
    shared = getattr(head, "from_tower", {})
    own = {key: value for key, value in head.state_dict().items() if key not in shared}
    return random_tensors(own)


def write_files(model: str, variant: str, folder: Path) -> tuple[Path, Path | None]:
    """The checkpoint of a detector's variant and, for a head, its backbone's file."""
    spec = find_detector(model)
    chosen = find_variant_of(spec, variant)
    weights, backbone = folder / f"{model}-{variant}.pth", folder / "tower.pth"
    if spec.network is None:
        torch.save(head_tensors(spec, chosen, REDUCED), weights)
        torch.save(random_tower(), backbone)
        return weights, backbone
    tensors = random_tensors(spec.network(chosen).state_dict())
    torch.save(in_layout(spec, tensors), weights)
    return weights, None


def in_layout(spec: DetectorSpec, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """A network's tensors as the detector's authors save them, with what only training needs."""
    layout = spec.layout
    extra = {f"{start}0.weight": torch.ones(2, 2) for start in layout.training_only}
    if not layout.sections:
        return {**tensors, **extra}
    first, *others = layout.sections
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in layout.sections}
    for key, tensor in tensors.items():
        section = next((name for name in others if key.startswith(f"{name}.")), None)
        if section:
            parts[section][key.removeprefix(f"{section}.")] = tensor
        else:
            parts[first][key] = tensor
    parts[first] |= extra
    return {**parts, "optimizer": {"lr": 0.1}, "epoch": 3}
