"""From files to a network: one detector, or several heads on one CLIP tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from trtdet.build.checkpoint import (
    Identity,
    StateDict,
    identify,
    load_into,
    load_state_dict,
    read_head,
)
from trtdet.build.clip_tower import ClipTower, lean_tower
from trtdet.build.detectors.registry import choose_variant, find_detector, is_released
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.release import Release
from trtdet.build.tower_files import Tower, load_tower
from trtdet.build.weights_store import CLIP_TOWERS, releases_of
from trtdet.errors import CheckpointError, InputError

Fetch = Callable[[Release], Path]


@dataclass(frozen=True)
class Part:
    """One detector, its checkpoint, and which of the released ones that is."""

    spec: DetectorSpec
    variant: Variant
    file: str
    identity: Identity
    released: bool


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, as its paper has it: normalised image -> float32 [N, K]."""

    network: nn.Module
    simplify: Callable[[nn.Module], nn.Module]  # may take the network over
    parts: tuple[Part, ...]  # one per logit
    tower: Tower | None = None  # without its tensors


class TowerDetectors(nn.Module):
    """float32 [N, 3, S, S], normalised -> float32 [N, heads]: one tower, once."""

    def __init__(self, tower: nn.Module, heads: list[nn.Module]):
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.tower(x)
        return torch.cat([head(seen) for head in self.heads], 1)


def find_detectors(model: str) -> list[DetectorSpec]:
    """The detectors that `--model` names, separated by commas.

    Raises InputError where several have not one tower and one input in common.
    """
    specs = [find_detector(name.strip()) for name in model.split(",")]
    if len(specs) == 1:
        return specs
    names = [spec.name for spec in specs]
    if not all(spec.head for spec in specs):
        raise InputError(
            f"{' and '.join(names)} share no network: build each by itself, and join them with "
            "`trtdet ensemble`"
        )
    if len(set(names)) < len(names):
        raise InputError(f"--model {model} names a detector twice")
    return specs


def split_variants(specs: list[DetectorSpec], requested: str | None) -> list[str | None]:
    """The variant that `--variant` names for each detector, separated by commas; None: unasked.

    Raises InputError where it names too few or too many.
    """
    if requested is None:
        return [None] * len(specs)
    variants = [name.strip() or None for name in requested.split(",")]
    if len(variants) != len(specs):
        raise InputError(
            f"--variant {requested} names {len(variants)} variants for {len(specs)} "
            "detectors: separate them with commas, and leave a place empty to have it recognised"
        )
    return variants


def find_files(
    specs: list[DetectorSpec],
    variants: list[str | None],
    weights: tuple[Path, ...],
    backbone: Path | None,
    fetch: Fetch | None,
) -> tuple[list[Path], Path | None]:
    """The files to load: those that were named, and for the others the released ones, fetched.

    Raises InputError (too few or too many, none to fetch with), CheckpointError (a named file is
    none), DownloadError; what was named is looked at first.
    """
    names = ", ".join(spec.name for spec in specs)
    if weights and len(weights) != len(specs):
        raise InputError(
            f"{len(specs)} of --weights are needed, one for each of {names} and in that order, "
            f"not {len(weights)}"
        )
    if backbone is not None and not specs[0].backbone:
        raise InputError(f"{specs[0].name} is a whole network: leave --backbone out")
    for path in (*weights, *([backbone] if backbone else [])):
        read_head(path)
    if fetch is None:
        if not weights or (specs[0].backbone and backbone is None):
            raise InputError(f"{names} needs its files: give --weights, and --backbone on a tower")
        return list(weights), backbone
    if not weights:
        releases = [releases_of(spec, each)[0] for spec, each in zip(specs, variants, strict=True)]
        weights = tuple(map(fetch, releases))
    if backbone is None and specs[0].backbone:
        backbone = fetch(CLIP_TOWERS[specs[0].backbone])
    return list(weights), backbone


def load_detectors(
    specs: list[DetectorSpec],
    weights: list[Path],
    variants: list[str | None],
    backbone: Path | None,
) -> Loaded:
    """The network of these detectors with these files; `backbone` is CLIP's, where they need it.

    Raises CheckpointError (wrong files), InputError (a variant that only the user can know).
    """
    if backbone is not None:
        return _load_heads(specs, weights, variants, backbone)
    spec, path = specs[0], weights[0]
    assert spec.network is not None  # a detector has a network or a head
    tensors = load_state_dict(path, spec.layout)
    identity = identify(path, tensors)
    # A wrong file is told by its keys, which all variants share, before a variant is asked for.
    load_into(spec.network(spec.variants[0]), tensors, source=path)
    variant = choose_variant(spec, variants[0], identity)
    network = spec.network(variant).eval()
    load_into(network, tensors, source=path)
    part = Part(spec, variant, path.name, identity, is_released(variant, identity))
    return Loaded(network, spec.simplify, (part,))


def _load_heads(
    specs: list[DetectorSpec],
    weights: list[Path],
    variants: list[str | None],
    backbone: Path,
) -> Loaded:
    tower = load_tower(backbone)
    _check_size(specs[0], tower)
    heads, parts = [], []
    for spec, path, requested in zip(specs, weights, variants, strict=True):
        tensors = load_state_dict(path, spec.layout)
        identity = identify(path, tensors)
        variant = choose_variant(spec, requested, identity)
        assert spec.head is not None
        head = spec.head(variant, tower.config, tensors).eval()
        shared = cast("Mapping[str, str]", getattr(head, "from_tower", {}))
        ours = {key: tower.tensors[there] for key, there in shared.items()}
        if both := sorted(ours.keys() & tensors.keys()):
            raise CheckpointError(
                f"{path} brings {', '.join(both)}, which are the tower's: give the head alone"
            )
        load_into(head, {**tensors, **ours}, source=path)
        heads.append(head)
        parts.append(Part(spec, variant, path.name, identity, is_released(variant, identity)))
    with torch.device("meta"):  # the tensors are at hand: none is made twice
        module = ClipTower(tower.config).eval()
    _adopt(module, tower.tensors)
    network = TowerDetectors(module, heads).eval()
    bare = Tower({}, tower.config, tower.name, tower.identity, tower.released)
    return Loaded(network, _simplify_heads, tuple(parts), bare)


def _check_size(spec: DetectorSpec, tower: Tower) -> None:
    """Raise CheckpointError for a tower that was trained at another resolution."""
    size, own = spec.geometry.fixed_size, tower.config.image_size
    if size != (own, own):
        raise CheckpointError(
            f"{tower.name} sees images of {own}x{own}, {spec.name} gives it {size[1]}x{size[0]}: "
            "give the tower of that resolution as --backbone"
        )


def _adopt(module: ClipTower, tensors: StateDict) -> None:
    """Make the tower's tensors the module's own; those that it does not need go."""
    needed = module.state_dict().keys()  # every one was checked when the file was read
    module.load_state_dict({key: tensors[key] for key in needed}, assign=True)
    tensors.clear()


def _simplify_heads(network: nn.Module) -> nn.Module:
    assert isinstance(network, TowerDetectors)
    assert isinstance(network.tower, ClipTower)
    network.tower = lean_tower(network.tower)
    return network
