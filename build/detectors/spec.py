"""The record of a detector: what it is, where its weights are, how it sees an image.

Weights and preprocessing stand in one record, so that neither can be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtdet.build.release import Release
from trtdet.engine.geometry import Geometry
from trtdet.engine.tiles import Blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trtdet.build.tower_shapes import TowerConfig


@dataclass(frozen=True)
class Normalization:
    """`(x / 255 - mean) / std` per RGB channel, in float32, in this order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # Read from a table of all levels: the same bits on every runtime, where a division by std may
    # have become a multiplication elsewhere. For networks that a last bit can turn.
    by_table: bool = False


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
    where: str = ""  # in words, where there is no address to download from

    @property
    def release(self) -> Release | None:
        """The file as a program can fetch and verify it; None where only a person can."""
        if not (self.file and self.url and self.git_blob):
            return None
        return Release(self.file, self.url, git_blob=self.git_blob)


@dataclass(frozen=True)
class Layout:
    """Where a checkpoint's tensors are, when it is not one state dict."""

    # State dicts of one file: the keys of the first stay as they are, the others' get their
    # section's name in front ("classifier.0.weight").
    sections: tuple[str, ...] = ()
    training_only: tuple[str, ...] = ()  # keys that start so are left out


PLAIN = Layout()


@dataclass(frozen=True)
class Reach:
    """How a fully convolutional network sees an image of any size.

    Its network has `features` (float32 [N, 3, H, W] -> [N, C, H', W']) and `head` (the mean over
    H', W' -> [N, 1]), also once it is simplified; see `trtdet.build.pooled`.
    """

    receptive_field: int  # pixels that one cell of the features reads, along an axis
    stride: int  # pixels from one cell to the next
    tile: int  # pixels: the longest side that is computed at once, unasked
    pixel_bytes: int  # of memory while it runs, for each pixel of a tile, as measured
    blocks: Blocks | None = None  # a tiling that the paper's code does, with its own scores


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that `trtdet build` needs to know of a detector."""

    name: str
    title: str
    paper: str
    repository: str  # with the commit that the network was specified from
    licence: str
    geometries: Mapping[str, Geometry]  # by the name that --geometry takes; the first by default
    normalization: Normalization
    variants: tuple[Variant, ...]
    # float32 [N, 3, H, W], normalised -> float32 [N, 1]
    network: Callable[[Variant], nn.Module] | None = None
    # The same function with fewer operations; it may take the network over.
    simplify: Callable[[nn.Module], nn.Module] = lambda network: network
    # In place of a network, on CLIP's tower: the head for such a tower and for these tensors, or
    # without any, of the variant's own shape. `trtdet.build.clip_tower.TowerOutput` -> [N, 1].
    head: Callable[[Variant, TowerConfig, Mapping[str, Tensor] | None], nn.Module] | None = None
    backbone: str = ""  # of `weights_store.CLIP_TOWERS`: the tower that its heads were trained on
    # Called once before a training, with batches of pieces: float32 [N, 3, H, W], normalised.
    initialize: Callable[[nn.Module, Iterable[Tensor]], None] | None = None
    reach: Reach | None = None  # needed by a geometry of native resolution
    layout: Layout = PLAIN
    tolerance: float = 1e-4  # a drift up to tolerance * (1 + |logit|) is rounding
    note: str = ""

    @property
    def geometry(self) -> Geometry:
        """The one that is used unasked."""
        return next(iter(self.geometries.values()))
