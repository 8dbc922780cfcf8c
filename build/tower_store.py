"""Towers that were converted once: canonical float32 safetensors, by the hash of their source.

$TRTDET_HOME/towers/<sha256 of the source file>.safetensors

Contract: what `read_tower` returns has the fingerprint that was noted when it was written. A file
that is damaged, or of another schema, counts as absent. Nothing is ever deleted here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import safetensors
from torch import Tensor

from trtdet.build.checkpoint import StateDict, fingerprint
from trtdet.engine.atomic import atomic_bytes
from trtdet.engine.store import store_folder

# A new one when the canonical keys, or what is checked of the tensors, change.
_SCHEMA = "trtdet-tower-1"


def tower_path(source_sha256: str) -> Path:
    """Where the store keeps the tower of a source file; it may not exist."""
    return store_folder() / "towers" / f"{source_sha256}.safetensors"


def read_tower(source_sha256: str) -> tuple[StateDict, str] | None:
    """The stored tensors and their fingerprint, or None. They are mapped, not yet in memory."""
    try:
        with safetensors.safe_open(tower_path(source_sha256), "pt") as file:
            noted = file.metadata() or {}
            if (noted.get("schema"), noted.get("source_sha256")) != (_SCHEMA, source_sha256):
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    found = fingerprint(tensors)
    return (tensors, found) if found == noted.get("fingerprint") else None


def store_tower(
    tensors: Mapping[str, Tensor], tensors_fingerprint: str, source_sha256: str, source_name: str
) -> bool:
    """Write canonical float32 tensors; False where the store cannot be written, or is full."""
    noted = {
        "schema": _SCHEMA,
        "source_name": source_name.encode("utf-8", "replace").decode(),  # it may be no Unicode
        "source_sha256": source_sha256,
        "fingerprint": tensors_fingerprint,
    }
    path = tower_path(source_sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_bytes(path) as file:
            _write_safetensors(file, tensors, noted)
    except OSError:
        return False
    return True


def _write_safetensors(
    file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """The format is its header's length, the header, the bytes: https://hf.co/docs/safetensors.

    `safetensors.torch.save` holds all of them twice more, 2.4 GB for ViT-L/14.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end_bytes = 0
    for key, tensor in tensors.items():
        start_bytes, end_bytes = end_bytes, end_bytes + 4 * tensor.numel()
        header[key] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start_bytes, end_bytes],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        array = tensor.contiguous().numpy()
        file.write(array.data if sys.byteorder == "little" else array.byteswap().data)
