"""Parts of a labelled set that are measured by themselves: generators, sources, file formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.labels import REAL, SYNTHETIC, LabelledImage

GENERATOR, SOURCE, FORMAT = "generator", "source", "format"

_SAME = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff"}  # suffixes of one format

SMALLEST = 10  # files of a source, synthetic ones of a generator, that gets a line of its own


@dataclass(frozen=True)
class Group:
    """Some images, and what they have in common."""

    kind: str
    name: str
    members: NDArray[np.bool_]  # [N]


def find_groups(images: Sequence[LabelledImage], smallest: int = SMALLEST) -> list[Group]:
    """Every group that the images' columns, or their folders, tell."""
    return [
        *_groups(GENERATOR, by_generator(images, smallest)),
        *_groups(SOURCE, by_source(images, smallest)),
        *_groups(FORMAT, by_format(images)),
    ]


def by_generator(
    images: Sequence[LabelledImage], smallest: int = SMALLEST
) -> dict[str, NDArray[np.bool_]]:
    """Each generator's files with real ones, the largest first: with those that carry its name, as
    in the field's folders, else with all real files.

    What stands before a colon is a family (`T2I diffusion: FLUX.1`), whose members stand together.
    Generators with fewer than `smallest` files are one group.
    """
    labels = np.array([each.label for each in images])
    names = np.array([each.generator.split(":")[0].strip() for each in images], object)
    synthetic = labels == SYNTHETIC
    groups = {}
    for title, members in _by_size(names[synthetic], smallest).items():
        named = np.isin(names, members)
        own = named & (labels == REAL)
        groups[title] = (named & synthetic) | (own if own.any() else labels == REAL)
    return groups


def by_source(
    images: Sequence[LabelledImage], smallest: int = SMALLEST
) -> dict[str, NDArray[np.bool_]]:
    """Each source's files, the largest first. Many a source has files of one class only."""
    names = np.array([each.source for each in images], object)
    found = _by_size(names, smallest)
    return {title: np.isin(names, members) for title, members in found.items()}


def by_format(images: Sequence[LabelledImage]) -> dict[str, NDArray[np.bool_]]:
    """Where files have several formats, a format is a shortcut: the synthetic files of each with
    all real ones, and the files of each alone, where both classes have it.
    """
    labels = np.array([each.label for each in images])
    suffixes = [each.path.suffix.lower().removeprefix(".") for each in images]
    formats = np.array([_SAME.get(suffix, suffix) for suffix in suffixes])
    groups = {}
    if len(set(formats)) > 1:
        for name in sorted(set(formats[labels == SYNTHETIC])):
            alike = formats == name
            groups[f"{name} synthetic, all real"] = (labels == REAL) | alike
            if (labels[alike] == REAL).any():
                groups[f"{name} alone"] = alike
    return groups


def _by_size(names: NDArray[np.object_], smallest: int) -> dict[str, list[str]]:
    """Titles and the names they stand for: the most frequent first, the rare ones together."""
    sizes = Counter(names[names != ""].tolist())
    few = [name for name, count in sizes.items() if count < smallest]
    found = {name: [name] for name, count in sizes.most_common() if count >= smallest}
    if few:
        found[f"{len(few)} others" if len(few) > 1 else few[0]] = few
    return found


def _groups(kind: str, found: dict[str, NDArray[np.bool_]]) -> list[Group]:
    return [Group(kind, name, members) for name, members in found.items()]
