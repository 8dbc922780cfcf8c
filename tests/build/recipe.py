"""Weights that are a function of their keys and shapes: what the golden logits were made with."""

from __future__ import annotations

import runpy
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def recipe_tensors(
    shared: Path, state: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Tensors of these keys and shapes. `prefix` stands before each key, for the recipe alone.

    ImagiNet's classifier has one, too, in place of the part's name.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    return filled(shared, shapes, prefix)


def listed_tensors(shared: Path, name: str, prefix: str = "") -> dict[str, Tensor]:
    """Tensors for a list of keys, shapes and types in `shared/specs`."""
    lines = (shared / "specs" / name).read_text().splitlines()
    return filled(shared, dict(map(_parsed, filter(None, lines))), prefix)


def filled(shared: Path, shapes: Mapping[str, Iterable[int]], prefix: str) -> dict[str, Tensor]:
    """Tensors of these shapes by key."""
    synth = _recipe(shared / "golden/recipe.py")["synth"]

    def seen_as(key: str) -> str:
        classifier = key.startswith("classifier.")
        return key.replace("classifier.", "classifier/") if classifier else prefix + key

    return {key: torch.from_numpy(synth(seen_as(key), shape)) for key, shape in shapes.items()}


@cache
def _recipe(path: Path) -> dict:
    return runpy.run_path(str(path))


def _parsed(line: str) -> tuple[str, tuple[int, ...]]:
    key, shape, _dtype = line.split("\t")
    return key, tuple(int(side) for side in shape.strip("()").split(",") if side.strip())
