"""Where a CLIP visual tower's tensors lie in the files that people have, by their keys alone.

A tower's canonical keys are OpenAI's without `visual.`. The other names are Hugging Face's
(transformers' CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection). open_clip has OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trtdet.build.checkpoint import listed
from trtdet.errors import CheckpointError

# Canonical key: Hugging Face's.
_STEM = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # spelled so there
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}

# Below a block's number. nn.MultiheadAttention stacks query, key and value, in this order.
_BLOCK = {
    "attn.in_proj_weight": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "attn.in_proj_bias": tuple(f"self_attn.{part}_proj.bias" for part in "qkv"),
    "attn.out_proj.weight": ("self_attn.out_proj.weight",),
    "attn.out_proj.bias": ("self_attn.out_proj.bias",),
    "ln_1.weight": ("layer_norm1.weight",),
    "ln_1.bias": ("layer_norm1.bias",),
    "mlp.c_fc.weight": ("mlp.fc1.weight",),
    "mlp.c_fc.bias": ("mlp.fc1.bias",),
    "mlp.c_proj.weight": ("mlp.fc2.weight",),
    "mlp.c_proj.bias": ("mlp.fc2.bias",),
    "ln_2.weight": ("layer_norm2.weight",),
    "ln_2.bias": ("layer_norm2.bias",),
}

_BLOCKS = "transformer.resblocks."

# Towers that are cut after their last block lack these.
_OPTIONAL = {"proj", "ln_post.weight", "ln_post.bias"}

# Any of these, and the file has a tower. A ResNet, OpenAI's too, has neither.
_MARKS = ("class_embedding", "ln_pre.weight")

# A module that holds the model as `model`, say, puts this before every key.
_OUTER = ("", "model.", "clip.", "module.")

_TEXT = re.compile(r"\b(token_embedding|text_model|ln_final)\.")
_VISUAL = re.compile(r"\b(visual|vision_model)\.")


@dataclass(frozen=True)
class Part:
    """A canonical tensor: the file's tensors `keys`, stacked on the first axis or transposed."""

    keys: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class _Layout:
    roots: tuple[str, ...]  # before the tower's keys; "" is the tower alone
    blocks: str  # before a block's number
    stem: Mapping[str, str]
    block: Mapping[str, tuple[str, ...]]
    projection: str  # after _OUTER
    transposed: bool  # the projection is a Linear's weight, [output, width]
    counters: tuple[str, ...]  # below the root: indices, not weights, that old files have
    beside: re.Pattern[str]  # what else the whole model holds: its text tower


_OPENAI = _Layout(
    roots=("visual.", ""),
    blocks=_BLOCKS,
    stem={key: key for key in _STEM},
    block={key: (key,) for key in _BLOCK},
    projection="{root}proj",
    transposed=False,
    counters=(),
    beside=re.compile(
        r"token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)|text_projection"
        r"|logit_scale|logit_bias|input_resolution|context_length|vocab_size|attn_mask|text\..+"
        rf"|transformer\.resblocks\.\d+\.(attn_mask|{'|'.join(map(re.escape, _BLOCK))})"
    ),
)
_HUGGING_FACE = _Layout(
    roots=("vision_model.", ""),
    blocks="encoder.layers.",
    stem=_STEM,
    block=_BLOCK,
    projection="visual_projection.weight",
    transposed=True,
    counters=("embeddings.position_ids",),
    beside=re.compile(r"text_model\..+|text_projection\.weight|logit_scale|logit_bias"),
)


def tower_parts(keys: Collection[str], source: Path | str) -> dict[str, Part]:
    """By canonical key, what to read from a file that has `keys`. `source` names it in messages.

    Raises CheckpointError where there is no visual tower, where a part of one is missing, and for
    every key that neither the visual tower nor the text tower of a CLIP model has.
    """
    layout, outer, root = _find_layout(keys, source)
    parts = _layout_parts(layout, outer, root, keys)
    missing = [
        key
        for name, part in parts.items()
        for key in part.keys
        if key not in keys and name not in _OPTIONAL
    ]
    known = {key for part in parts.values() for key in part.keys}
    known |= {outer + root + key for key in layout.counters}
    foreign = [key for key in keys if key not in known]
    if root:
        foreign = [key for key in foreign if not _is_beside(key, outer, layout)]
    problems = [
        f"{len(found)} {kind}: {listed(found)}"
        for kind, found in (("missing", missing), ("unexpected", foreign))
        if found
    ]
    if problems:
        raise CheckpointError(
            f"{source} is not the file of a CLIP ViT. Tensors " + "; ".join(problems) + ". Give "
            "ViT-L-14.pt as OpenAI released it, or a CLIP model that open_clip or transformers "
            "saved, without other layers"
        )
    return {name: part for name, part in parts.items() if set(part.keys) <= set(keys)}


def block_numbers(keys: Iterable[str], before: str = _BLOCKS) -> set[int]:
    """The numbers of the blocks whose keys start with `before`; canonical keys if not given."""
    # More than three digits number no block, and a file could make a list of any length of them.
    block = re.compile(re.escape(before) + r"(0|[1-9]\d{0,2})\.")
    return {int(found[1]) for key in keys if (found := block.match(key))}


def _find_layout(keys: Collection[str], source: Path | str) -> tuple[_Layout, str, str]:
    for layout in (_OPENAI, _HUGGING_FACE):
        for outer in _OUTER:
            for root in layout.roots:
                if any(outer + root + layout.stem[mark] in keys for mark in _MARKS):
                    return layout, outer, root
    if any(map(_TEXT.search, keys)) and not any(map(_VISUAL.search, keys)):
        raise CheckpointError(
            f"{source} holds the text tower of a CLIP model alone: give the file of the whole "
            "model, or of its visual tower"
        )
    raise CheckpointError(
        f"{source} holds no visual tower of a CLIP ViT (its keys: {listed(keys)}): give "
        "ViT-L-14.pt as OpenAI released it, or the same model from open_clip or transformers"
    )


def _layout_parts(layout: _Layout, outer: str, root: str, keys: Collection[str]) -> dict[str, Part]:
    before = outer + root
    parts = {name: Part((before + key,)) for name, key in layout.stem.items()}
    projection = outer + layout.projection.format(root=root)
    parts["proj"] = Part((projection,), layout.transposed)
    present = block_numbers(keys, before + layout.blocks)
    # Of a gap, the first missing block is enough for a message.
    for number in sorted(present | set(range(max(len(present), 1)))):
        for name, below in layout.block.items():
            found = tuple(f"{before}{layout.blocks}{number}.{key}" for key in below)
            parts[f"{_BLOCKS}{number}.{name}"] = Part(found)
    return parts


def _is_beside(key: str, outer: str, layout: _Layout) -> bool:
    return key.startswith(outer) and bool(layout.beside.fullmatch(key.removeprefix(outer)))
