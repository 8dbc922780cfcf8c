"""What a CLIP visual tower is, read from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trtdet.build.checkpoint import listed
from trtdet.build.tower_layouts import block_numbers
from trtdet.errors import CheckpointError

Shape = tuple[int, ...]

# In every tower that OpenAI released, and in open_clip's of the same names.
_HEAD_WIDTH = 64

# open_clip's ViT-H: 16 heads of 80. Shapes do not tell them from 20 heads of 64, and a network
# with these would give numbers, only not the tower's.
_OTHER_HEADS = {1280: 80}

_LN_POST = {"ln_post.weight", "ln_post.bias"}


@dataclass(frozen=True)
class TowerConfig:
    """The sizes of a tower: `image_size` and `patch` in pixels, `width` and `output` in channels.

    `output` is None where the tower has no projection.
    """

    width: int
    layers: int
    heads: int
    patch: int
    image_size: int
    output: int | None

    @property
    def tokens(self) -> int:
        """The patches of an image, and one more for the class."""
        return (self.image_size // self.patch) ** 2 + 1


def tower_config(
    tensors: Mapping[str, Tensor], *, source: Path | str = "the state dict"
) -> TowerConfig:
    """The sizes of the tower in `tensors`, by canonical key. `source` names them in messages.

    Raises CheckpointError unless they are exactly the tensors of `tower_shapes` for those sizes;
    without `proj`, `ln_post` may be absent too.
    """
    width, channels, patch, patch_width = _shape(tensors, "conv1.weight", 4, source)
    tokens, _ = _shape(tensors, "positional_embedding", 2, source)
    side = math.isqrt(max(tokens - 1, 0))
    layers = len(block_numbers(tensors))
    if channels != 3 or patch != patch_width or patch == 0:
        raise _no_tower(source, f"conv1.weight takes {channels} channels by {patch}×{patch_width}")
    if side == 0 or side**2 != tokens - 1:
        raise _no_tower(source, f"{tokens} positions are not a square of patches and a class")
    if width == 0 or width % _HEAD_WIDTH or width in _OTHER_HEADS:
        raise _no_tower(source, f"{width} channels are not made of heads of {_HEAD_WIDTH}")
    if layers == 0:
        raise _no_tower(source, "it has no blocks")
    config = TowerConfig(
        width=width,
        layers=layers,
        heads=width // _HEAD_WIDTH,
        patch=patch,
        image_size=patch * side,
        output=_shape(tensors, "proj", 2, source)[1] if "proj" in tensors else None,
    )
    _check_shapes(tensors, config, source)
    return config


def tower_shapes(config: TowerConfig) -> dict[str, Shape]:
    """The shape of every tensor of a tower, by canonical key."""
    width = config.width
    shapes: dict[str, Shape] = {
        "class_embedding": (width,),
        "positional_embedding": (config.tokens, width),
        "conv1.weight": (width, 3, config.patch, config.patch),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    if config.output is not None:
        shapes["proj"] = (width, config.output)
    for number in range(config.layers):
        block = f"transformer.resblocks.{number}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.attn.out_proj.bias": (width,),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_fc.bias": (4 * width,),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.mlp.c_proj.bias": (width,),
        }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    return shapes


def _shape(tensors: Mapping[str, Tensor], key: str, axes: int, source: Path | str) -> Shape:
    if key not in tensors:
        raise _no_tower(source, f"{key} is missing")
    shape = tuple(tensors[key].shape)
    if len(shape) != axes:
        raise _no_tower(source, f"{key} is {list(shape)}, with {axes} axes needed")
    return shape


def _check_shapes(tensors: Mapping[str, Tensor], config: TowerConfig, source: Path | str) -> None:
    shapes = tower_shapes(config)
    absent = _LN_POST if config.output is None and not _LN_POST & set(tensors) else set()
    missing = [key for key in shapes if key not in tensors and key not in absent]
    unexpected = [key for key in tensors if key not in shapes]
    differing = [
        f"{key} {list(tensors[key].shape)}, needed {list(shape)}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    problems = [
        f"{len(keys)} {kind}: {listed(keys)}"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", differing),
        )
        if keys
    ]
    if problems:
        raise _no_tower(source, "tensors " + "; ".join(problems))


def _no_tower(source: Path | str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} is not the visual tower of a CLIP ViT with heads of {_HEAD_WIDTH}: {why}. "
        "Give the file of ViT-L/14, ViT-B/32 or ViT-B/16"
    )
