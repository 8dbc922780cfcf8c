"""A CLIP visual tower from wherever people have it, in one form.

Read are OpenAI's TorchScript archive, and state dicts with the keys of OpenAI, open_clip or Hugging
Face as torch.save or safetensors wrote them, of the whole model or of the tower alone. What comes
out is the same: float32 tensors by OpenAI's keys without `visual.`.

A file does not say which activation its tower was trained with (OpenAI's: QuickGELU; most of
open_clip's own: GELU). `Tower.released` says whether it is a tower that is known.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from trtdet.build.checkpoint import (
    Identity,
    StateDict,
    damaged,
    fingerprint,
    hash_file,
    is_safetensors,
    listed,
    load_state_dict,
    read_head,
)
from trtdet.build.tower_layouts import Part, tower_parts
from trtdet.build.tower_shapes import TowerConfig, tower_config
from trtdet.build.tower_store import read_tower, store_tower
from trtdet.errors import CheckpointError

# sha256 of OpenAI's files (https://github.com/openai/CLIP, clip/clip.py). A TorchScript archive is
# code, and runs only if it is one of these.
RELEASED_FILES = {
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "OpenAI CLIP ViT-L/14",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "OpenAI CLIP ViT-B/32",
}

# What float32 takes without loss, and float64, which few tools write.
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

# Of transformers' names, one of several; `model-00001-of-00001.safetensors` is whole.
_SHARD = re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.")


@dataclass(frozen=True, eq=False)
class Tower:
    """A visual tower: canonical float32 tensors on the CPU, and what is known of them.

    `name` is the file's; `identity` has the fingerprint of `tensors` and the hashes of the file;
    `released` says whose tower it is, if the file is a known one.
    """

    tensors: StateDict
    config: TowerConfig
    name: str
    identity: Identity
    released: str | None


def load_tower(path: Path) -> Tower:
    """The visual tower of a CLIP file. It is kept in the store, and read from there the next time.

    Raises CheckpointError for whatever is not one whole tower with finite values, and for a
    TorchScript archive that is not one of `RELEASED_FILES`.
    """
    head = read_head(path)
    _refuse_shards(path, head)
    sha256, git_blob = hash_file(path)
    stored = read_tower(sha256)
    if stored is not None:
        tensors, tensors_fingerprint = stored
        config = tower_config(tensors, source=path)
    else:
        tensors = _read_source(path, head, sha256)
        config = tower_config(tensors, source=path)
        tensors_fingerprint = fingerprint(tensors)
        store_tower(tensors, tensors_fingerprint, sha256, path.name)
    return Tower(
        tensors=tensors,
        config=config,
        name=path.name,
        identity=Identity(tensors_fingerprint, git_blob, sha256),
        released=RELEASED_FILES.get(sha256),
    )


def _read_source(path: Path, head: bytes, sha256: str) -> StateDict:
    if is_safetensors(path, head):
        try:
            with safetensors.safe_open(path, "pt") as file:
                return _canonical(tower_parts(file.keys(), path), file.get_tensor, path)
        except safetensors.SafetensorError as error:
            raise damaged(path, "safetensors", error) from error
    whole = _load_torchscript(path, sha256) if _is_torchscript(path) else load_state_dict(path)
    parts = tower_parts(whole.keys(), path)
    wanted = {key for part in parts.values() for key in part.keys}
    for key in whole.keys() - wanted:
        del whole[key]
    return _canonical(parts, whole.pop, path)


def _canonical(parts: Mapping[str, Part], read: Callable[[str], Tensor], source: Path) -> StateDict:
    """Convert tensor by tensor: `read` gives each once, and its memory is free again after."""
    tensors = {
        name: _float32([read(key) for key in part.keys], part, source)
        for name, part in parts.items()
    }
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite values in float32: {listed(bad)}. The file is "
            "damaged: download it again and compare its size"
        )
    return tensors


def _float32(pieces: list[Tensor], part: Part, source: Path) -> Tensor:
    for key, piece in zip(part.keys, pieces, strict=True):
        if piece.dtype not in _FLOATS or piece.layout is not torch.strided or piece.is_meta:
            kind = str(piece.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source}: {key} is no dense tensor of floats but {kind}: give the weights that "
                "were trained, before any quantization"
            )
    shapes = [list(piece.shape) for piece in pieces]
    if [] in shapes or any(shape != shapes[0] for shape in shapes):
        raise CheckpointError(
            f"{source}: {', '.join(part.keys)} have the shapes {shapes}, which are no tower's: "
            "download the file again, or give another"
        )
    whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    if part.transposed:
        whole = whole.transpose(0, -1)
    # A copy even of float32: one that owns its memory, and not the whole file's.
    return whole.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _is_torchscript(path: Path) -> bool:
    """Whether the names in an archive are TorchScript's. Nothing of it is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return False
    return any(name == "constants.pkl" or name.startswith("code/") for name in names)


def _load_torchscript(path: Path, sha256: str) -> StateDict:
    if sha256 not in RELEASED_FILES:
        raise CheckpointError(
            f"{path} is a TorchScript archive, which is code, and not one that OpenAI released "
            f"(sha256 {sha256[:16]}…), so it is not run. Download OpenAI's file again, or, if you "
            "trust this one, save its tensors alone, where it was made: "
            "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), ...)"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning
            )
            archive = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"torch {torch.__version__} cannot load {path} ({str(error).splitlines()[0][:200]}), "
            "though the file is whole. Save its tensors with an older torch: "
            "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), ...)"
        ) from error


def _refuse_shards(path: Path, head: bytes) -> None:
    if _SHARD.search(path.name) or (head.lstrip()[:1] == b"{" and path.suffix == ".json"):
        raise CheckpointError(
            f"{path} is one of several files that make a model (or their index): write the model "
            "as one file, CLIPVisionModelWithProjection.from_pretrained(folder)"
            '.save_pretrained(out, max_shard_size="100GB"), and give that'
        )
