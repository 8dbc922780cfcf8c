"""A bundle on its way to other machines: its files in memory, and on each machine once on disk.

    $TRTDET_HOME/shipped/<sha256>/    one bundle, known by the hash of its files

Plans and compiled kernels stay at home: they are code, and each machine compiles its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.atomic import atomic_folder
from trtdet.engine.bundle import PLANS
from trtdet.engine.digest import sha256_file
from trtdet.engine.lock import locked
from trtdet.engine.store import store_folder
from trtdet.errors import BundleError

KERNELS = "kernels"


@dataclass(frozen=True)
class ShippedFiles:
    """A bundle's files by their relative paths, uint8 [bytes] each."""

    contents: dict[str, NDArray[np.uint8]]


def read_files(bundle: Path) -> ShippedFiles:
    """All that another machine needs of the bundle in `bundle`."""
    return ShippedFiles({name: np.fromfile(bundle / name, np.uint8) for name in _names(bundle)})


def bundle_digest(bundle: Path) -> str:
    """The sha256 of a bundle's files and their names, plans and kernels left out."""
    lines = (f"{sha256_file(bundle / name)} {name}\n" for name in _names(bundle))
    return sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def unpack_once(digest: str, fetch: Callable[[], ShippedFiles]) -> Path:
    """The folder of the bundle `digest` on this machine; the first who asks `fetch`es it.

    Raises BundleError where what came does not have that digest.
    """
    folder = store_folder() / "shipped" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), on_wait=lambda: None):
        if not folder.is_dir() or bundle_digest(folder) != digest:
            with atomic_folder(folder) as out:
                for name, content in fetch().contents.items():
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    content.tofile(out / name)
                if bundle_digest(out) != digest:
                    raise BundleError(f"the bundle did not arrive whole in {folder}: try again")
    return folder


def _names(bundle: Path) -> Iterator[str]:
    for path in sorted(bundle.rglob("*")):
        relative = path.relative_to(bundle)
        if path.is_file() and not {PLANS, KERNELS} & set(relative.parts[:-1]):
            yield relative.as_posix()
