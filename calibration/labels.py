"""A labelled CSV: `filename,label` (0 real, 1 synthetic), with optional columns that groups use.

`split` is `train` or `val`; `source` says where a file comes from, `generator` what made it; `part`
is the VIP Cup's, 1 or 2; `image` names the picture that several files were cut from, which
therefore stay together.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trtdet.errors import InputError

REAL, SYNTHETIC = 0, 1
TRAIN, VAL = "train", "val"

_LISTED = 5  # lines or files that a message names


@dataclass(frozen=True)
class LabelledImage:
    """One row of a labelled CSV."""

    path: Path
    label: int  # 0 real, 1 synthetic
    split: str = ""  # "train", "val", another name, or empty where the CSV has no such column
    source: str = ""
    generator: str = ""
    part: str = ""
    image: str = ""  # files of one picture share it; the file's own name where the CSV has none


def read_labels(path: Path, *, some_missing: bool = False) -> list[LabelledImage]:
    """Every row of the CSV, each checked; file names are relative to the CSV's folder or absolute.

    `some_missing`: files that are not there are left to whoever reads them, unless none is.
    Raises InputError, with the lines, for a missing column, a label that is neither 0 nor 1, a file
    that is not there, and a CSV that has images of one class only.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [name for name in ("filename", "label") if name not in columns]
            if missing:
                raise InputError(
                    f"{path} has no column {' and no column '.join(map(repr, missing))}: its first "
                    "line must name `filename` and `label` (0 real, 1 synthetic)"
                )
            lines = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a well-formed CSV: {error}") from error
    _check_labels(path, lines)
    images = [_labelled(path.parent, row) for _line, row in lines]
    _check_files(path, images, some_missing)
    check_classes(images, str(path))
    return images


def check_classes(images: Sequence[LabelledImage], what: str) -> None:
    """Raise InputError unless `images` has both classes; `what` names them in the message."""
    count = Counter(each.label for each in images)
    if not (count[REAL] and count[SYNTHETIC]):
        raise InputError(
            f"{what} has {count[REAL]} real and {count[SYNTHETIC]} synthetic images: both classes "
            "are needed (label 0 is real, 1 is synthetic)"
        )


def split_images(
    images: Sequence[LabelledImage], *, seed: int, val_share: float = 0.15
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """The training and the validation images.

    By the column `split` where there is one (rows with another name than `train` and `val` are left
    out); else `val_share` of the pictures of each class are drawn for validation. Raises InputError
    when a part lacks a class, or when files of one picture lie on both sides.
    """
    if any(each.split for each in images):
        drawn = list(images)
    else:
        drawn = _draw_split(images, seed, val_share)
    training = [each for each in drawn if each.split == TRAIN]
    validation = [each for each in drawn if each.split == VAL]
    for part, name in ((training, TRAIN), (validation, VAL)):
        check_classes(part, f"the split '{name}'")
    straddling = {each.image for each in training} & {each.image for each in validation}
    if straddling:
        raise InputError(
            f"{len(straddling)} pictures have files in both splits, so validation would flatter: "
            f"{', '.join(sorted(straddling)[:_LISTED])}. Put all files of one `image` in one split"
        )
    return training, validation


def _draw_split(
    images: Sequence[LabelledImage], seed: int, val_share: float
) -> list[LabelledImage]:
    chosen: set[str] = set()
    rng = np.random.default_rng(seed)
    for label in (REAL, SYNTHETIC):
        pictures = sorted({each.image for each in images if each.label == label} - chosen)
        count = max(1, round(val_share * len(pictures)))
        chosen.update(rng.permutation(pictures)[:count].tolist())
    return [replace(each, split=VAL if each.image in chosen else TRAIN) for each in images]


def _labelled(folder: Path, row: dict[str, str]) -> LabelledImage:
    name = row["filename"]
    return LabelledImage(
        path=folder / name,
        label=int(row["label"]),
        split=(row.get("split") or "").strip().lower(),
        source=row.get("source") or "",
        generator=row.get("generator") or "",
        part=(row.get("part") or "").strip().removesuffix(".0"),  # pandas, where one is missing
        image=row.get("image") or name,
    )


def _check_labels(path: Path, lines: list[tuple[int, dict[str, str]]]) -> None:
    if not lines:
        raise InputError(f"{path} has no rows after its first line")
    nameless = [f"line {line}" for line, row in lines if not row["filename"]]
    if nameless:
        raise InputError(
            f"{path} has {len(nameless)} rows without a filename: {', '.join(nameless[:_LISTED])}"
        )
    bad = [
        f"line {line}: {row['label']!r}"
        for line, row in lines
        if (row["label"] or "").strip() not in ("0", "1")
    ]
    if bad:
        raise InputError(
            f"{path} has {len(bad)} labels that are neither 0 (real) nor 1 (synthetic): "
            f"{', '.join(bad[:_LISTED])}"
        )


def _check_files(path: Path, images: Sequence[LabelledImage], some_missing: bool) -> None:
    missing = [str(each.path) for each in images if not each.path.is_file()]
    if len(missing) == len(images) or (missing and not some_missing):
        raise InputError(
            f"{len(missing)} of {len(images)} files that {path} lists are not there: "
            f"{', '.join(missing[:_LISTED])}. Names are relative to the CSV's folder"
        )
