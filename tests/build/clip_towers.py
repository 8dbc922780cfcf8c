"""Small random CLIP towers, written in every layout that people have."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from trtdet.build import tower_files
from trtdet.build.tower_files import Tower
from trtdet.build.tower_shapes import TowerConfig, tower_shapes

SMALL = TowerConfig(width=128, layers=3, heads=2, patch=4, image_size=12, output=32)

StateDict = dict[str, torch.Tensor]


def random_tower(config: TowerConfig = SMALL) -> StateDict:
    """Canonical tensors whose values float16 and bfloat16 hold too."""
    generator = torch.Generator().manual_seed(7)
    return {
        key: torch.randint(-99, 100, shape, generator=generator) / 64
        for key, shape in tower_shapes(config).items()
    }


def text_tower() -> StateDict:
    """What OpenAI's model has beside `visual.`, at a small size."""
    width = 64
    tensors = {
        "token_embedding.weight": torch.ones(50, width),
        "positional_embedding": torch.ones(7, width),
        "ln_final.weight": torch.ones(width),
        "ln_final.bias": torch.ones(width),
        "text_projection": torch.ones(width, 32),
        "logit_scale": torch.tensor(4.6),
    }
    shapes = tower_shapes(TowerConfig(width, 2, 1, 4, 8, None))
    blocks = {key: shape for key, shape in shapes.items() if key.startswith("transformer.")}
    return tensors | {key: torch.ones(shape) for key, shape in blocks.items()}


def openai(tower: StateDict) -> StateDict:
    sizes = {"input_resolution": 12, "context_length": 7, "vocab_size": 50}
    visual = {f"visual.{key}": tensor for key, tensor in tower.items()}
    return visual | text_tower() | {key: torch.tensor(size) for key, size in sizes.items()}


def open_clip_custom_text(tower: StateDict) -> StateDict:
    text = {f"text.{key}": tensor for key, tensor in text_tower().items()}
    visual = {f"visual.{key}": tensor for key, tensor in tower.items()}
    return visual | text | {"logit_scale": torch.tensor(4.6), "logit_bias": torch.tensor(-10.0)}


HUGGING_FACE = {
    r"^class_embedding": "embeddings.class_embedding",
    r"^positional_embedding": "embeddings.position_embedding.weight",
    r"^conv1\.": "embeddings.patch_embedding.",
    r"^ln_pre\.": "pre_layrnorm.",
    r"^ln_post\.": "post_layernorm.",
    r"^transformer\.resblocks\.": "encoder.layers.",
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}


def clip_vision_model(tower: StateDict, root: str = "vision_model.") -> StateDict:
    """transformers' CLIPVisionModel: no projection."""
    tensors = {}
    for key, tensor in tower.items():
        if key == "proj":
            continue
        if ".attn.in_proj_" in key:
            block, kind = key.split(".attn.in_proj_")
            block = block.replace("transformer.resblocks.", "encoder.layers.")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                tensors[f"{root}{block}.self_attn.{part}_proj.{kind}"] = piece.clone()
            continue
        for pattern, name in HUGGING_FACE.items():
            key = re.sub(pattern, name, key)
        tensors[root + key] = tensor
    return tensors


def clip_vision_with_projection(tower: StateDict) -> StateDict:
    projection = tower["proj"].t().contiguous()
    return {**clip_vision_model(tower), "visual_projection.weight": projection}


def clip_model(tower: StateDict) -> StateDict:
    """transformers' CLIPModel, with the position ids that old files have."""
    return clip_vision_with_projection(tower) | {
        "logit_scale": torch.tensor(4.6),
        "text_projection.weight": torch.ones(32, 64),
        "text_model.embeddings.token_embedding.weight": torch.ones(50, 64),
        "text_model.embeddings.position_ids": torch.arange(7)[None],
        "vision_model.embeddings.position_ids": torch.arange(10)[None],
    }


LAYOUTS: dict[str, Callable[[StateDict], StateDict]] = {
    "bare": dict,
    "openai": openai,
    "openai visual alone": lambda t: {f"visual.{key}": tensor for key, tensor in t.items()},
    "inside a model": lambda t: {f"model.{key}": tensor for key, tensor in openai(t).items()},
    "data parallel": lambda t: {f"module.{key}": tensor for key, tensor in openai(t).items()},
    "open_clip custom text": open_clip_custom_text,
    "CLIPModel": clip_model,
    "CLIPVisionModelWithProjection": clip_vision_with_projection,
}


def save_torch(tensors: StateDict, path: Path) -> Path:
    torch.save(tensors, path)
    return path


def save_safetensors(tensors: StateDict, path: Path) -> Path:
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, path, {"format": "pt"})
    return path


def save_torchscript(tensors: StateDict, path: Path) -> Path:
    """An archive whose modules have the names in the keys, as OpenAI's has."""
    model = nn.Module()
    for key, tensor in tensors.items():
        *parents, name = key.split(".")
        module = model
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, nn.Module())
            module = module._modules[parent]
        module.register_buffer(name, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model).save(str(path))
    return path


def equal(tower: Tower, tensors: StateDict) -> bool:
    return tower.tensors.keys() == tensors.keys() and all(
        torch.equal(tower.tensors[key], tensors[key])
        and tower.tensors[key].dtype == torch.float32
        and tower.tensors[key].is_contiguous()
        for key in tensors
    )


def pin(monkeypatch: pytest.MonkeyPatch, path: Path, name: str = "A known tower") -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(tower_files.RELEASED_FILES, sha256, name)
