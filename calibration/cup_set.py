"""A folder of images under the VIP Cup's protocol, made of a folder, a data set or a CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trtdet.calibration.cup_protocol import SUFFIXES, Made, apply_protocol
from trtdet.calibration.layouts import has_class_folders, read_images
from trtdet.engine.atomic import atomic_folder
from trtdet.errors import InputError

# In the folder that is made: what was drawn (the organisers' name), the labels where there are
# some, and the images that could not be used.
DRAWS, LABELS, ERRORS = "metainfo.csv", "labels.csv", "errors.csv"

_COLUMNS = ("label", "generator", "source", "split", "part", "image")  # of a data set's labels


@dataclass(frozen=True)
class Source:
    """An image to take, and its columns in the labels."""

    path: Path
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CupSet:
    """What was made."""

    images: int
    failed: dict[str, str]  # source: reason
    labelled: bool


def make_cup_set(
    source: Path,
    out: Path,
    *,
    seed: int,
    count: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> CupSet:
    """Apply the protocol to the images of `source`, all or `count` of them, into the folder `out`.

    `out` appears whole or not at all. `on_image` is called for each. Raises InputError where `out`
    has something in it, and where no image can be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: give the name of a new folder")
    sources = read_sources(source)
    with atomic_folder(out) as folder:
        made = []
        for each in apply_protocol([one.path for one in sources], folder, seed, count):
            made.append(each)
            on_image()
        failed = {str(sources[each.source].path): each.reason for each in made if not each.draw}
        done = [each for each in made if each.draw]
        if not done:
            reason = made[0].reason if made else "there is none"
            raise InputError(f"no image of {source} can be used ({reason})")
        _write(folder / DRAWS, ["filename", "src", "cropsize", "x1", "y1", "qf"],
               (_drawn(each, sources) for each in done))  # fmt: skip
        columns = list(sources[0].columns)
        if columns:
            rows = ([each.name, *sources[each.source].columns.values()] for each in done)
            _write(folder / LABELS, ["filename", *columns], rows)
        if failed:
            _write(folder / ERRORS, ["filename", "reason"], failed.items())
    return CupSet(len(done), failed, bool(columns))


def read_sources(source: Path) -> list[Source]:
    """The images of a folder, as the organisers' script takes them; of a data set; of a CSV.

    Those of a folder are sorted by name. A data set's labels and a CSV's columns come along; what
    lies beside its class folders is not of it.
    """
    if not source.is_dir():
        return _listed(source)
    names = sorted(
        path for path in source.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )  # fmt: skip
    if names and not has_class_folders(source):
        return [Source(path) for path in names]
    return [
        Source(each.path, {name: str(getattr(each, name)) for name in _COLUMNS})
        for each in read_images(source)
    ]


def _listed(path: Path) -> list[Source]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if "filename" not in reader.fieldnames:
                raise InputError(f"{path} has no column 'filename'")
            others = [name for name in reader.fieldnames if name != "filename"]
            rows = list(reader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a well-formed CSV: {error}") from error
    sources = []
    for row in rows:
        columns = {name: row[name] for name in others}
        if "label" in columns:  # files cut from one picture are kept together by this column
            columns.setdefault("image", row["filename"])
        sources.append(Source(path.parent / row["filename"], columns))
    return sources


def _drawn(made: Made, sources: Sequence[Source]) -> list[object]:
    draw = made.draw
    assert draw is not None
    return [made.name, sources[made.source].path, draw.crop, draw.x, draw.y, draw.quality]


def _write(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
