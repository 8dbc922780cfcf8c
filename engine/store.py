"""The store: where bundles live on this machine, and which one is the default.

$TRTDET_HOME (else $XDG_DATA_HOME/trtdet, else ~/.local/share/trtdet)
  bundles/<name>/   one bundle each
  weights/<file>    released weights, as they were fetched
  towers/           CLIP towers as `trtdet build` reads them, made from the files it was given
  plans/            of bundles whose own folder cannot be written, by the sha256 of their graph
  built/            a marker for each plan and kernel that was compiled here: no other is loaded
  timing/           what TensorRT measured of its kernels, so that the next build need not
  locks/            of what is being compiled
  default           the name, or the absolute path, of the bundle that `trtdet score` takes

Until there is a default, `trtdet score` takes the starter: a bundle that lies in the package.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import trtdet
from trtdet.engine.atomic import atomic_text
from trtdet.errors import BundleError, InputError

STARTER = "starter"

# The file that makes a folder a bundle. Here, and not with the bundle's other files, so that what
# only looks for bundles, or fetches weights, imports nothing to read them.
RECORD = "bundle.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def store_folder() -> Path:
    """The root of the store; it may not exist yet."""
    if home := os.environ.get("TRTDET_HOME"):
        return Path(home).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "trtdet"


def bundle_folder(name: str) -> Path:
    """Where the store keeps the bundle `name`. Raises InputError for a name that none can have."""
    if name == STARTER:
        raise InputError(f"{STARTER} is the package's own bundle: choose another --name")
    if not _NAME.fullmatch(name):
        raise InputError(f"'{name}' cannot name a bundle: use letters, digits, '.', '_' and '-'")
    return store_folder() / "bundles" / name


def starter_bundle() -> Path:
    """The folder of the bundle that comes with the package."""
    return Path(trtdet.__file__).parent / STARTER


def check_place(out: Path) -> None:
    """Raise InputError where `out` is something that no build may replace."""
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not (out / RECORD).is_file() and not empty:
        raise InputError(f"{out} exists and is not a bundle: choose another --out")


def stored_bundles() -> list[str]:
    """The names of the bundles in the store."""
    return sorted(path.parent.name for path in (store_folder() / "bundles").glob(f"[!.]*/{RECORD}"))


def find_bundle(engine: str | None) -> Path:
    """The folder of the bundle that `engine` means: a name in the store, a folder, or the default.

    `starter` is the package's own; a folder of that name is `./starter`.

    Raises BundleError with the next command when there is none.
    """
    if engine is None:
        return default_bundle()
    if engine == STARTER:
        return starter_bundle()
    if _NAME.fullmatch(engine) and (bundle_folder(engine) / RECORD).is_file():
        return bundle_folder(engine)
    if (Path(engine) / RECORD).is_file():
        return Path(engine)
    if Path(engine).is_dir():
        raise BundleError(
            f"{engine} is not a bundle (it has no {RECORD}): see `trtdet build --help`"
        )
    names = [*stored_bundles(), STARTER]
    close = difflib.get_close_matches(engine, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise BundleError(
        f"no engine '{engine}': there is {', '.join(names)}.{hint} "
        "Make one with `trtdet build --model NAME --weights FILE`"
    )


def default_bundle() -> Path:
    """The folder of the store's default bundle; the starter while none was chosen."""
    try:
        text = (store_folder() / "default").read_text(encoding="utf-8", errors="surrogateescape")
        name = text.removesuffix("\n")
    except FileNotFoundError:
        return starter_bundle()
    folder = store_folder() / "bundles" / name  # an absolute `name` stands for itself
    if not (folder / RECORD).is_file():
        raise BundleError(
            f"the store's default engine {name} is gone: pass --engine, or build it again"
        )
    return folder


def set_default(folder: Path) -> None:
    """Make the bundle in `folder` the store's default."""
    folder = folder.absolute()
    inside = folder.parent == store_folder() / "bundles"
    store_folder().mkdir(parents=True, exist_ok=True)
    with atomic_text(store_folder() / "default") as file:
        file.write((folder.name if inside else str(folder)) + "\n")
