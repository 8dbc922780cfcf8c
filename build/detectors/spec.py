"""The record of a detector: what it is, where its weights are, how it sees an image.

Weights and preprocessing stand in one record, so that neither can be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtdet.engine.geometry import Geometry

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Normalization:
    """`(x / 255 - mean) / std` per RGB channel, in float32, in this order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Variant:
    """One checkpoint of a detector; without a file, a network that is there to be trained."""

    name: str
    trained_on: str
    file: str = ""  # the file's name where it was released
    url: str = ""  # where a person finds it
    git_blob: str | None = None  # sha1 of the git blob: pins the file's bytes
    fingerprint: str | None = None  # `checkpoint.fingerprint` of its tensors, when known
    front_end: str = ""  # what the network computes that the tensors do not tell


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that `trtdet build` needs to know of a detector."""

    name: str
    title: str
    paper: str
    repository: str  # with the commit that the network was specified from
    licence: str
    geometry: Geometry
    normalization: Normalization
    variants: tuple[Variant, ...]
    network: Callable[[Variant], nn.Module]  # float32 [N, 3, H, W] normalised -> float32 [N, 1]
    simplify: Callable[[nn.Module], nn.Module]  # the same function with fewer operations
    # Called once before a training, with batches of pieces: float32 [N, 3, H, W], normalised.
    initialize: Callable[[nn.Module, Iterable[Tensor]], None] | None = None
    tolerance: float = 1e-4  # a drift up to tolerance * (1 + |logit|) is rounding
    note: str = ""
