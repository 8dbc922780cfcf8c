"""The layouts of the field's data sets: a labelled CSV, or a tree whose folders name the classes.

- ForenSynths (CNNDetection), UniversalFakeDetect, AIGCDetectBenchmark: `progan/airplane/0_real`,
  `DALLE2/1_fake`, with or without a category between generator and class.
- GenImage: `Midjourney/imagenet_midjourney/val/ai`, `.../val/nature`.
- Plain `real` and `fake` folders.
- The VIP Cup's: images beside a CSV, here with a column `label`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trtdet.calibration.labels import (
    REAL,
    SYNTHETIC,
    TRAIN,
    VAL,
    LabelledImage,
    check_classes,
    read_labels,
)
from trtdet.engine.listing import image_suffixes
from trtdet.errors import InputError

# A folder of one class: its name in lower case.
CLASS_FOLDERS = {
    "0_real": REAL, "1_fake": SYNTHETIC,
    "nature": REAL, "ai": SYNTHETIC,
    "real": REAL, "fake": SYNTHETIC,
}  # fmt: skip

TEST = "test"
_SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}


def read_images(source: Path, split: str | None = None) -> list[LabelledImage]:
    """The labelled images of a CSV or of a tree, sorted in a tree; of `split` where it is given.

    In a tree the first folder names the generator, of real images, too: those it is compared with.
    Without a `split`, a tree that has `train` gives its `test`, or else its `val`, as GenImage is
    evaluated. Raises InputError where there are no images of both classes, and as `read_labels`
    does; but files of a CSV that are not there are left to whoever reads them, unless none is.
    """
    if not source.is_dir():
        images = read_labels(source, some_missing=True)
    else:
        images = _walk(source)
        splits = {each.split for each in images}
        if split is None and TRAIN in splits:
            split = next((name for name in (TEST, VAL) if name in splits), None)
    if split is None:
        return images
    split = split.strip().lower()
    chosen = [each for each in images if each.split == split]
    if not chosen:
        known = ", ".join(sorted({each.split for each in images} - {""})) or "no splits"
        raise InputError(f"{source} has no images of the split '{split}' (it has {known})")
    check_classes(chosen, f"the split '{split}' of {source}")
    return chosen


def has_class_folders(root: Path) -> bool:
    """Whether there is an image in a folder that names a class."""
    return next(_images(root), None) is not None


def _walk(root: Path) -> list[LabelledImage]:
    images = list(_images(root))
    if not images:
        names = ", ".join(f"{real}/{fake}" for real, fake in _pairs())
        raise InputError(
            f"{root} has no folders that name the classes ({names}) with images in them: give a "
            "CSV with the columns `filename` and `label` (0 real, 1 synthetic)"
        )
    check_classes(images, str(root))
    return images


def _images(root: Path) -> Iterator[LabelledImage]:
    """Below each folder of a class, every image, whatever the folders in between."""
    for folder, inner, files in os.walk(root, followlinks=True):
        path = Path(folder)
        # Generators may share a folder of real images by a link; one that leads up has no end.
        inner[:] = sorted(name for name in inner if not _leads_up(path / name))
        names = path.relative_to(root).parts
        at = next((i for i, name in enumerate(names) if name.lower() in CLASS_FOLDERS), None)
        if at is None:
            continue
        above = [name for name in names[:at] if name.lower() not in _SPLITS]
        splits = [_SPLITS[name.lower()] for name in names[:at] if name.lower() in _SPLITS]
        for name in sorted(files):
            if Path(name).suffix.lower() in image_suffixes() and not name.startswith("."):
                yield LabelledImage(
                    path=path / name,
                    label=CLASS_FOLDERS[names[at].lower()],
                    split=splits[0] if splits else "",
                    generator=above[0] if above else root.resolve().name,
                    image=str((path / name).relative_to(root)),
                )


def _leads_up(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _pairs() -> Iterator[tuple[str, str]]:
    names = list(CLASS_FOLDERS)
    return zip(names[::2], names[1::2], strict=True)
