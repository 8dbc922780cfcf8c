"""Activation ranges: what is measured once, and stays valid while nothing that it hangs on changes.

`ranges.json`, in the bundle, holds the limit of every tensor in 8 bits, with the hashes of all that
decides them. The histograms behind it stay in the store, so that another method needs no other
pass over the images, and a pass that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from trtdet.calibration.collect import Tap, collect
from trtdet.calibration.histograms import Activations
from trtdet.calibration.images import SetImage
from trtdet.calibration.limits import Method, choose_limit
from trtdet.engine.atomic import atomic_bytes, atomic_text
from trtdet.engine.bundle import read_record
from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry, geometry_to_json
from trtdet.engine.store import store_folder
from trtdet.engine.tiles import Tiling
from trtdet.errors import BundleError

RANGES = "ranges.json"

# Raised whenever the same images would give other ranges.
SCHEMA = 1

_SAVED_EVERY = 16  # images


@dataclass(frozen=True)
class RangeKey:
    """Everything that ranges depend on."""

    graph: str  # sha256 of the float32 graph
    geometry: str  # how an image is brought to the network
    images: str  # sha256 of the calibration images, in their order
    tensors: str  # sha256 of which were looked at
    method: str
    schema: int = SCHEMA

    def changed_parts(self, other: RangeKey) -> list[str]:
        """What differs, in the words of the fields."""
        names = (field.name for field in fields(self))
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    @property
    def digest(self) -> str:
        """Of all but the method, which the histograms do not depend on."""
        parts = {**asdict(self), "method": None}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Ranges:
    """What calibration came to."""

    key: RangeKey
    limits: dict[str, float]  # of each tensor in 8 bits, the magnitude of its largest level
    largest: dict[str, float]  # of each tensor in float16, the largest magnitude that was seen


def range_key(
    graph: Path,
    geometry: Geometry,
    images: Collection[SetImage],
    tensors: Collection[str],
    others: Collection[str],
    method: Method,
) -> RangeKey:
    """The key of the ranges that these would give."""
    return RangeKey(
        graph=sha256_file(graph),
        geometry=json.dumps(geometry_to_json(geometry), sort_keys=True),
        images=_sha256("\n".join(each.sha256 for each in images)),
        tensors=_sha256("\n".join([*tensors, "", *others])),
        method=method,
    )


def observe(
    graph: Path,
    geometry: Geometry,
    tiling: Tiling | None,
    images: Collection[SetImage],
    tensors: Collection[str],
    others: Collection[str],
    key: RangeKey,
    on_image: Callable[[int], None],
) -> Activations:
    """Histograms of `tensors` and the largest magnitudes of `others`, over the images.

    What the store has of a run with the same key is taken up. `on_image` hears the count.
    """
    place = store_folder() / "calibration" / f"{key.digest}.npz"
    seen = _load(place)
    rest = list(images)[seen.images :]
    if not rest:
        return seen
    place.parent.mkdir(parents=True, exist_ok=True)

    def keep(count: int) -> None:
        if count % _SAVED_EVERY == 0 or count == len(images):
            _save(seen, place)
        on_image(count)

    collect(
        Tap(graph, tensors, others), (each.views(geometry) for each in rest), tiling, seen, keep
    )
    return seen


def choose_ranges(seen: Activations, key: RangeKey, method: Method) -> Ranges:
    """The limits by one of the methods."""
    limits = {name: choose_limit(each, method) for name, each in seen.histograms.items()}
    return Ranges(key, limits, {**seen.largest})


def write_ranges(ranges: Ranges, folder: Path) -> None:
    """Write `ranges.json` into a bundle's folder."""
    record = {"key": asdict(ranges.key), "limits": ranges.limits, "largest": ranges.largest}
    with atomic_text(folder / RANGES) as file:
        file.write(json.dumps(record, indent=1) + "\n")


def read_ranges(folder: Path) -> Ranges | None:
    """The ranges of a bundle; None where it has none, or others than it was built with."""
    try:
        if read_record(folder)["hashes"][RANGES] != sha256_file(folder / RANGES):
            return None
        record: dict[str, Any] = json.loads((folder / RANGES).read_text(encoding="utf-8"))
        return Ranges(RangeKey(**record["key"]), record["limits"], record["largest"])
    except (OSError, ValueError, KeyError, TypeError, BundleError):
        return None


def _save(seen: Activations, place: Path) -> None:
    with atomic_bytes(place) as file:
        np.savez_compressed(file, **seen.to_arrays())  # type: ignore[arg-type]


def _load(place: Path) -> Activations:
    """What was saved; nothing where that cannot be read."""
    try:
        with np.load(place, allow_pickle=False) as arrays:
            return Activations.from_arrays(arrays)
    # A damaged archive raises whatever the place of the damage makes of it.
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, BadZipFile, zlib.error):
        return Activations()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
