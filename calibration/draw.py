"""Draw a calibration set from a user's images.

Images come in turns from every stratum (class, file format, size), so that a rare kind is in the
set, too; within a stratum chance decides, from a seed. A file that does not decode, and one whose
pixels or whose picture (the column `image`) the set already has, is passed over.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from trtdet.calibration.images import FEWEST, CalibrationSet, SetImage
from trtdet.engine.decode import quiet_decoders
from trtdet.engine.digest import sha256_file
from trtdet.errors import ImageError, InputError

SIZE, GATE_SIZE = 512, 256

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}

# Class, format, and the power of two nearest the shorter side.
_Stratum = tuple[int | None, str, int]

OnSkip = Callable[[Path, str], None]


def draw_set(
    source: Path,
    *,
    size: int = SIZE,
    gate_size: int = GATE_SIZE,
    seed: int = 0,
    on_skip: OnSkip = lambda _path, _reason: None,
) -> CalibrationSet:
    """At most `size` images to calibrate on and `gate_size` to judge by.

    `source` is a folder, or a CSV with a column `filename` and perhaps `label`. Where there are too
    few images for both, the gate comes first, but for the 32 that calibration needs at least.
    `on_skip` hears of every file that was passed over. Raises InputError below 32 images.
    """
    if size < FEWEST:
        raise InputError(f"{size} images are too few: calibration needs {FEWEST} or more")
    quiet_decoders()
    turns = _in_turns(_candidates(source), seed)
    drawn = list(islice(_usable(turns, on_skip), size + gate_size))
    if len(drawn) < FEWEST:
        raise InputError(
            f"{source} has {len(drawn)} usable images, and calibration needs {FEWEST} or more: "
            "add images of the kind that will be scored"
        )
    count = min(size, max(FEWEST, len(drawn) - gate_size))
    judging = _spread(drawn, len(drawn) - count)
    images = [image for index, (image, _) in enumerate(drawn) if index not in judging]
    gate = [replace(drawn[index][0], role="gate") for index in sorted(judging)]
    return CalibrationSet((*images, *gate))


def _spread(drawn: list[tuple[SetImage, _Stratum]], count: int) -> set[int]:
    """Which ones judge: as large a part of every stratum, so that none is on one side only."""
    order = sorted(range(len(drawn)), key=lambda index: (str(drawn[index][1]), index))
    return {
        index
        for place, index in enumerate(order)
        if (place + 1) * count // len(drawn) > place * count // len(drawn)
    }


@dataclass(frozen=True)
class _Candidate:
    path: Path
    label: int | None
    picture: str  # files of one picture share it


_Turn = tuple[_Candidate, _Stratum]


def _candidates(source: Path) -> list[_Candidate]:
    if source.is_dir():
        found = [path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES]
        return [_Candidate(path, None, str(path)) for path in sorted(found) if path.is_file()]
    try:
        with source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            if "filename" not in columns:
                raise InputError(f"{source} has no column 'filename'")
            return [_listed(source, reader.line_num, row) for row in reader if row["filename"]]
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(f"{source} is not a well-formed CSV: {error}") from error


def _listed(source: Path, line: int, row: dict[str, str]) -> _Candidate:
    """A row: `filename`, and where the columns are there a `label` and a picture, `image`."""
    label = (row.get("label") or "").strip()
    if label not in ("", "0", "1"):
        raise InputError(
            f"{source}, line {line}: the label {label!r} is neither 0 (real) nor 1 (synthetic)"
        )
    path = source.parent / row["filename"]
    return _Candidate(path, int(label) if label else None, row.get("image") or str(path))


def _in_turns(candidates: list[_Candidate], seed: int) -> Iterator[_Turn]:
    """Class after class, within a class stratum after stratum, within a stratum by chance."""
    strata: dict[_Stratum, list[_Turn]] = defaultdict(list)
    for each in candidates:
        stratum = _stratum(each)
        strata[stratum].append((each, stratum))
    rng = np.random.default_rng(seed)
    classes: dict[int | None, list[Iterator[_Turn]]] = defaultdict(list)
    for key in sorted(strata, key=str):
        members = strata[key]
        classes[key[0]].append(iter([members[index] for index in rng.permutation(len(members))]))
    return _rotate([_rotate(members) for members in classes.values()])


def _rotate(iterators: list[Iterator[_Turn]]) -> Iterator[_Turn]:
    """One from each in turn, until all are empty."""
    while iterators:
        for iterator in list(iterators):
            try:
                yield next(iterator)
            except StopIteration:
                iterators.remove(iterator)


def _stratum(candidate: _Candidate) -> _Stratum:
    """No pixel is decoded."""
    try:
        with Image.open(candidate.path) as image:
            size = round(float(np.log2(min(image.size))))
            return candidate.label, str(image.format), size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return candidate.label, "", 0


def _usable(turns: Iterator[_Turn], on_skip: OnSkip) -> Iterator[tuple[SetImage, _Stratum]]:
    seen: set[str] = set()
    for each, stratum in turns:
        image = SetImage(each.path, "", "calibration", each.label)
        try:
            rgb = image.pixels()
            image = replace(image, sha256=sha256_file(each.path))
        except (ImageError, OSError) as error:
            on_skip(each.path, str(error))
            continue
        pixels = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
        if each.picture in seen or pixels in seen:
            on_skip(each.path, "the set already has this picture")
            continue
        seen |= {each.picture, pixels}
        yield image, stratum
