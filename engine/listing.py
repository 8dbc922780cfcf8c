"""The images of a folder, or the files that match a pattern, as names: the rows of a table.

    photos               what is in it, at any depth, and has the suffix of an image
    'photos/**/*.jpg'    what matches: * ? [abc] within a name, ** for any number of folders

Hidden files and folders are left out, except where a part of the pattern begins with a dot, as a
shell does. Symbolic links to files are listed; those to folders are not entered, or a loop would
have no end, except where they are written out before the pattern begins.

Names come sorted, folder by folder. Memory depends on the largest folder, not on their number.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

from trtdet.engine.confine import open_folder, path_beneath
from trtdet.errors import InputError

ANY_DEPTH = "**"

# What Pillow has a suffix for but does not decode, or not without Ghostscript.
_NOT_DECODED = {"EPS", "MPEG"}

States = frozenset[int]


def is_listed(source: str) -> bool:
    """Whether an input is a folder or a pattern. A file of that very name is none."""
    return Path(source).is_dir() or (glob.has_magic(source) and not os.path.lexists(source))


def list_names(source: str, root: Path | None = None, output: Path | None = None) -> Iterator[str]:
    """The names that a folder or a pattern comes to, sorted.

    In a folder they are relative to it, for a pattern as they match, and with a `root` relative to
    that. A folder that cannot be read is a name itself, with a slash at its end: nothing is passed
    over in silence. The run's own `output`, and what has its name and more, is left out.

    Raises InputError where there is no name, where the folder lies outside the root, and where
    `output` would replace an image.
    """
    is_folder = Path(source).is_dir()
    start, parts = ("", [ANY_DEPTH]) if is_folder else _split(source)
    base = Path(source if is_folder else start)
    if output and output.exists() and _has_suffix(output.name):
        raise InputError(f"the output {output} is an image's name: give another, say scores.csv")
    if root:
        below = path_beneath(root, base)
        start = "" if below == Path() else f"{below}/"
        scan = _scanner_in(root, below)
    else:
        scan = _scanner(base)
    is_own = _own(base, output)
    empty = True
    for name in _walk(scan, _Pattern(parts), source):
        if is_own(name) or (is_folder and not name.endswith("/") and not _has_suffix(name)):
            continue
        empty = False
        yield start + name
    if empty:
        what = f"there is no image in {source}" if is_folder else f"no file matches {source}"
        raise InputError(f"{what}: give a CSV, a Parquet file, a folder, or a pattern in quotes")


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of what Pillow, as installed here, decodes: in small letters, with the dot."""
    Image.init()
    stubs = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    decoded = {*Image.OPEN, "MPO"} - stubs - _NOT_DECODED  # an MPO is opened as a JPEG
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in suffixes if name in decoded)


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in image_suffixes()  # noqa: PTH122 - a str, quickly


def _split(source: str) -> tuple[str, list[str]]:
    """What is written out of a pattern, up to a slash, and the parts from its first wildcard on."""
    parts = source.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    # An empty last part, after a slash, matches no file; others stand between two slashes.
    rest = [*filter(None, parts[first:-1]), parts[-1]]
    return "".join(f"{part}/" for part in parts[:first]), rest


class _Pattern:
    """The parts of a pattern. A state is the set of parts that may come next."""

    def __init__(self, parts: Iterable[str]):
        self._parts = list(parts)
        self._matches = [re.compile(fnmatch.translate(part)).match for part in self._parts]
        self.start = self._skipping({0})

    def after(self, states: States, name: str) -> States:
        """The states after a file or a folder of this name; none where it does not fit."""
        found = set()
        for state in states - {len(self._parts)}:
            part = self._parts[state]
            if name.startswith(".") and not part.startswith("."):
                continue
            if part == ANY_DEPTH:
                found.add(state)
            elif self._matches[state](name):
                found.add(state + 1)
        return self._skipping(found)

    def is_end(self, states: States) -> bool:
        """Whether a file may end here."""
        return len(self._parts) in states

    def goes_on(self, states: States) -> bool:
        """Whether a folder may hold what matches."""
        return any(state < len(self._parts) for state in states)

    def _skipping(self, states: set[int]) -> States:
        """`**` may also stand for no folder at all."""
        for state in sorted(states):
            while state < len(self._parts) and self._parts[state] == ANY_DEPTH:
                state += 1
                states.add(state)
        return frozenset(states)


Scan = Callable[[str], list[str]]


def _walk(scan: Scan, pattern: _Pattern, source: str) -> Iterator[str]:
    """Every file that matches, and every folder that might hold one but cannot be read."""
    try:
        levels = [("", pattern.start, iter(scan("")))]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"cannot list {source}: {error.strerror or error}") from error
    while levels:
        prefix, states, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        after = pattern.after(states, entry.rstrip("/"))
        name = prefix + entry
        if not entry.endswith("/"):
            if pattern.is_end(after):
                yield name
        elif pattern.goes_on(after):
            try:
                levels.append((name, after, iter(scan(name))))
            except OSError:
                yield name


def _scanner(base: Path) -> Scan:
    return lambda name: _entries(base / name)


def _scanner_in(root: Path, below: Path) -> Scan:
    def scan(name: str) -> list[str]:
        with open_folder(root, below / name) as descriptor:
            return _entries(descriptor)

    return scan


def _entries(folder: int | Path) -> list[str]:
    """The names in a folder, sorted; a folder's ends with a slash, as in the names beneath it."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_folder(entry):
                names.append(entry.name)
            elif not entry.is_symlink():
                names.append(f"{entry.name}/")
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a row, whose image cannot be read
        return False


def _own(base: Path, output: Path | None) -> Callable[[str], bool]:
    """Whether a name is the run's output, or lies beside it and has its name and more."""
    if output is None:
        return lambda _name: False
    target, folder = output.name, os.path.realpath(output.parent)

    def is_own(name: str) -> bool:
        path = base / name
        if path.name != target and not path.name.startswith(f"{target}."):
            return False
        return os.path.realpath(path.parent) == folder

    return is_own
