"""Weights from a file into a network: nothing is executed, guessed or left random.

A released checkpoint is recognised by `fingerprint`, which sees only the tensors: the same weights
have the same fingerprint as a bare dictionary, wrapped, prefixed, or saved as safetensors.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trtdet.build.detectors.spec import PLAIN, Layout
from trtdet.build.release import is_lfs_pointer, is_web_page
from trtdet.errors import CheckpointError

StateDict = dict[str, Tensor]

# What training scripts put around a state dict. Wrappers nest: {"model": {"state_dict": ...}}.
_WRAPPERS = ("model", "state_dict", "net")

# torch.nn.DataParallel puts this before every key.
_PREFIX = "module."

# BatchNorm counts its training batches here. Inference never reads it, and old files lack it.
_COUNTER = "num_batches_tracked"

_LISTED = 8  # keys that an error message names of each kind

_ZIP = b"PK\x03\x04"  # torch.save since 1.6
_PICKLE = re.compile(rb"\x80[\x02-\x05]")  # torch.save before


def load_state_dict(path: Path, layout: Layout = PLAIN) -> StateDict:
    """The tensors of a checkpoint by key, on the CPU, in the types they were saved in.

    What `layout` knows to serve training alone is left out. Raises CheckpointError for whatever is
    not a file of named tensors, and for a pickle that holds more than tensors and plain containers:
    unpickling that would run code from the file.
    """
    head = read_head(path)
    content = _load_safetensors(path) if is_safetensors(path, head) else _load_torch(path, head)
    tensors = _join_sections(content, layout.sections, path)
    return {k: v for k, v in tensors.items() if not k.startswith(layout.training_only)}


def load_into(network: nn.Module, state_dict: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Copy every tensor into `network`, as float32. `source` names the file in messages.

    Raises CheckpointError unless keys and shapes are exactly the network's (only
    `num_batches_tracked` may be absent) and every value is finite.
    """
    own = cast("StateDict", network.state_dict())
    _check_keys(own, state_dict, source)
    tensors = {key: _converted(state_dict.get(key, own[key]), own[key]) for key in own}
    bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite values in float32: {listed(bad)}. The file is "
            "damaged, or the training that wrote it diverged: use another checkpoint"
        )
    network.load_state_dict(tensors)


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is known by: its tensors, whatever holds them, and its very file."""

    fingerprint: str
    git_blob: str
    sha256: str


def identify(path: Path, state_dict: Mapping[str, Tensor]) -> Identity:
    """The identity of a checkpoint file and of the tensors that were read from it."""
    sha256, git_blob = hash_file(path)
    return Identity(fingerprint(state_dict), git_blob, sha256)


def hash_file(path: Path) -> tuple[str, str]:
    """Hex sha256 of a file, and the id that git gives its content. The file is read once."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            blob.update(block)
    return sha256.hexdigest(), blob.hexdigest()


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """sha256 over sorted keys, types, shapes and bytes of the tensors, but no counters."""
    digest = hashlib.sha256()
    for key in sorted(key for key in state_dict if not key.endswith(_COUNTER)):
        tensor = state_dict[key].detach().cpu().contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{key} {kind} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_head(path: Path) -> bytes:
    """The first 512 bytes of a weights file.

    Raises CheckpointError for what cannot be read, and for what a failed download leaves behind.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give the path of the downloaded weights")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the weights file inside it")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: download the weights again")
    if is_lfs_pointer(head):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in that repository, "
            "or download the raw file"
        )
    if is_web_page(head):
        raise CheckpointError(
            f"{path} is a web page, not the weights: download the raw file "
            "(on GitHub: /raw/ in the address in place of /blob/)"
        )
    return head


def is_safetensors(path: Path, head: bytes) -> bool:
    """Whether a file is safetensors, by its name or by its first bytes."""
    # The format: the JSON header's length as 8 little-endian bytes, then the header itself.
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and head[4:8] == bytes(4))


def _load_safetensors(path: Path) -> StateDict:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise damaged(path, "safetensors", error) from error


def _load_torch(path: Path, head: bytes) -> Any:
    if not (head.startswith(_ZIP) or _PICKLE.match(head)):
        raise CheckpointError(
            f"{path} is no checkpoint: neither torch.save nor safetensors wrote it. "
            "Give the weights file that the detector's authors released"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)|(?i:reduce|instance|class)\b", str(error))
        if not refused:
            raise damaged(path, "torch.save", error) from error
        what = f" ({refused[1]})" if refused[1] else ""
        raise CheckpointError(
            f"{path} holds more than tensors{what}, and loading it would run code from the file, "
            "so it is refused. If you trust it, save its tensors alone, where it was made: "
            "torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:
        # torch promises no list: damaged archives have raised assertion, type and struct errors.
        raise damaged(path, "torch.save", error) from error


def damaged(path: Path, writer: str, error: Exception) -> CheckpointError:
    """The error for a file of `writer` (a name) that starts well and cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return CheckpointError(
        f"{path} starts as a {writer} file but cannot be read ({reason}): it is cut short or "
        "damaged. Download it again and compare its size"
    )


def _join_sections(content: Any, sections: tuple[str, ...], path: Path) -> StateDict:
    """One state dict of a file's sections, or the only one it has."""
    found = [name for name in sections if isinstance(content, Mapping) and name in content]
    if not found:
        return _without_prefix(_unwrap(content, path))
    if missing := [name for name in sections if name not in found]:
        raise CheckpointError(
            f"{path} has a part {found[0]!r} but none called {', '.join(missing)}: "
            "give the file that the detector's authors released, with all its parts"
        )
    tensors = _without_prefix(_unwrap(content[sections[0]], path))
    for name in sections[1:]:
        part = _without_prefix(_unwrap(content[name], path))
        tensors |= {f"{name}.{key}": tensor for key, tensor in part.items()}
    return tensors


def _unwrap(content: Any, path: Path) -> StateDict:
    while isinstance(content, Mapping):
        wrapper = next((w for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not any(map(torch.is_tensor, content.values())):
        holds = f"keys {listed(map(str, content))}" if isinstance(content, Mapping) else "none"
        raise CheckpointError(
            f"{path} holds no named tensors (a {type(content).__name__}; {holds}): "
            "give a file with the network's state dict"
        )
    foreign = [str(key) for key, value in content.items() if not torch.is_tensor(value)]
    if foreign:
        raise CheckpointError(
            f"{path} mixes tensors with other values: {listed(foreign)}. "
            "Save the network's state dict alone, or under the key 'state_dict'"
        )
    return {str(key): tensor for key, tensor in content.items()}


def _without_prefix(tensors: StateDict) -> StateDict:
    if not all(key.startswith(_PREFIX) for key in tensors):
        return tensors
    return {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}


def _check_keys(own: StateDict, given: Mapping[str, Tensor], source: Path | str) -> None:
    missing = [key for key in own if key not in given and not key.endswith(_COUNTER)]
    unexpected = [key for key in given if key not in own]
    differing = [
        f"{key} {_kind(given[key])}, needed {_kind(tensor)}"
        for key, tensor in own.items()
        if key in given and _kind(given[key]) != _kind(tensor)
    ]
    problems = [
        f"{len(keys)} {name}: {listed(keys)}"
        for name, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", differing),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{source} does not fit the network. Tensors " + "; ".join(problems) + ". "
            "Check that --model names the detector that these weights were trained for "
            "(`trtdet models` lists them with their files)"
        )


def _kind(tensor: Tensor) -> str:
    """The shape, and what float conversion cannot bridge: integers where floats are needed."""
    return str(list(tensor.shape)) + ("" if tensor.is_floating_point() else " of integers")


def _converted(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(dtype=like.dtype)


def listed(keys: Iterable[str]) -> str:
    """The first keys, and how many more there are, for a message."""
    keys = list(keys)
    more = f", and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more
