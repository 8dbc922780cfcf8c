"""Calibration sets: which images ranges are taken from, and which ones judge the result.

A set is a manifest, a JSON file beside or above its images: for each its file, the file's sha256,
its label where there is one, and its role, `calibration` or `gate`. No image has both roles, nor do
two files with the same pixels or of the same picture. The set's hash says what it is, whatever its
folder is called.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.atomic import atomic_text
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, read_image_file
from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry, Pixels, apply_geometry
from trtdet.errors import ImageError, InputError

SCHEMA = 1

# Fewer say nothing about the ranges.
FEWEST = 32

# From so many on, the share of changed decisions that is allowed, 1 %, can be told from none.
FEWEST_GATED = 256

Role = Literal["calibration", "gate"]


@dataclass(frozen=True)
class SetImage:
    """One image of a set."""

    path: Path
    sha256: str  # of the file
    role: Role
    label: int | None = None  # 0 real, 1 synthetic

    def pixels(self) -> NDArray[np.uint8]:
        """Decoded as `trtdet score` decodes it, uint8 [H, W, 3]. Raises ImageError."""
        return decode_rgb(read_image_file(self.path), max_pixels=DEFAULT_MAX_PIXELS)

    def views(self, geometry: Geometry) -> Pixels:
        """What a network sees of it, [views, H, W, 3]. Raises InputError for what decodes not."""
        try:
            return apply_geometry(geometry, self.pixels())
        except ImageError as error:
            raise InputError(f"{self.path}: {error}; make the calibration set again") from error


@dataclass(frozen=True)
class CalibrationSet:
    """Images for ranges, and others to judge by."""

    images: tuple[SetImage, ...]
    generated: bool = False  # drawn by this project, for want of the user's own

    def of(self, role: Role) -> tuple[SetImage, ...]:
        """The images of one role, in their order."""
        return tuple(each for each in self.images if each.role == role)

    @property
    def sha256(self) -> str:
        """Of what is in it: contents, labels and roles."""
        lines = [f"{each.sha256} {each.label} {each.role}" for each in self.images]
        return hashlib.sha256("\n".join([f"set {SCHEMA}", *lines]).encode()).hexdigest()

    def __str__(self) -> str:
        kind = "generated images" if self.generated else "images"
        counts = [f"{len(self.of(role))} to judge by" if role == "gate" else
                  f"{len(self.of(role))} to calibrate on" for role in get_args(Role)]  # fmt: skip
        return f"{' and '.join(counts)}, {kind}"


def write_set(chosen: CalibrationSet, path: Path) -> None:
    """Write the manifest; files are named relative to its folder where they lie in it."""
    folder = path.absolute().parent
    images = []
    for each in chosen.images:
        file = each.path.absolute()
        name = file.relative_to(folder) if file.is_relative_to(folder) else file
        images.append(
            {"file": str(name), "sha256": each.sha256, "role": each.role, "label": each.label}
        )
    record = {
        "schema": SCHEMA, "sha256": chosen.sha256, "generated": chosen.generated, "images": images
    }  # fmt: skip
    with atomic_text(path) as file_:
        file_.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_set(path: Path) -> CalibrationSet:
    """Read a manifest, and check that every file is what it was.

    Raises InputError, with the file, for one that changed or is gone, and for what is no manifest.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        chosen = _from_json(record, path.absolute().parent)
        same = record["sha256"] == chosen.sha256
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is no calibration set ({error}): make one with `trtdet calibrate set`"
        ) from error
    if not same:
        raise InputError(f"{path} was edited by hand: make it with `trtdet calibrate set`")
    for each in chosen.images:
        try:
            if sha256_file(each.path) == each.sha256:
                continue
            what = "changed since the set was made"
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
        raise InputError(f"{each.path} {what}: make the calibration set again")
    return chosen


def _from_json(record: dict[str, Any], folder: Path) -> CalibrationSet:
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']} in place of {SCHEMA}")
    images = []
    for each in record["images"]:
        if each["role"] not in get_args(Role) or each["label"] not in (0, 1, None):
            raise ValueError(f"an image of role {each['role']!r}, label {each['label']!r}")
        images.append(SetImage(folder / each["file"], each["sha256"], each["role"], each["label"]))
    return CalibrationSet(tuple(images), bool(record["generated"]))
