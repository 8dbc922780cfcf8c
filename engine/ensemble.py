"""An ensemble: several bundles in one folder, and how their logits become one.

bundle.json      its name, its vote, and the hash of each member's own record
members/<name>/  the members, whole bundles
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trtdet.engine.atomic import atomic_folder
from trtdet.engine.bundle import SCHEMA, Bundle, open_bundle, read_record
from trtdet.engine.decision import Vote
from trtdet.engine.digest import sha256_file
from trtdet.engine.store import RECORD, check_place
from trtdet.errors import BundleError, InputError

MEMBERS = "members"


@dataclass(frozen=True)
class Ensemble:
    """The record of an ensemble, and its members."""

    name: str
    vote: Vote
    members: tuple[Bundle, ...]
    path: Path

    @property
    def precision(self) -> str:
        """Of its members."""
        return ", ".join(sorted({member.precision for member in self.members}))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The columns of the output, as a bundle's: the vote's one logit."""
        return ("logit",)

    def to_json(self) -> dict[str, Any]:
        """The record as `bundle.json` holds it."""
        return {
            "name": self.name,
            **asdict(self.vote),
            "weights": list(self.vote.weights),
            "members": {
                member.path.name: sha256_file(member.path / RECORD) for member in self.members
            },
            "schema": SCHEMA,
        }


def make_ensemble(name: str, folders: list[Path], vote: Vote, out: Path) -> Ensemble:
    """Put the bundles in `folders` into one folder, `out`, under a common record.

    Raises InputError for members that cannot stand together, or a folder in the way.
    """
    if len(folders) < 2:
        raise InputError("an ensemble has two members or more")
    members = [_member(folder) for folder in folders]
    names = [member.name for member in members]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise InputError(f"{twice[0]} is there twice: give each member once, with --weights")
    check_place(out)
    if (out / RECORD).is_file() and MEMBERS not in read_record(out):
        raise InputError(f"{out} is the bundle of one detector: choose another --name")
    if out.resolve() in (folder.resolve() for folder in folders):
        raise InputError(f"{out} is one of the members: choose another --name")
    with atomic_folder(out) as folder:
        for member in members:
            shutil.copytree(member.path, folder / MEMBERS / member.name, copy_function=_link)
        inside = (replace(each, path=folder / MEMBERS / each.name) for each in members)
        write_ensemble(Ensemble(name, vote, tuple(inside), folder), folder)
    placed = (replace(each, path=out / MEMBERS / each.name) for each in members)
    return Ensemble(name, vote, tuple(placed), out)


def _member(folder: Path) -> Bundle:
    bundle = open_any(folder)
    if isinstance(bundle, Ensemble):
        raise InputError(f"{bundle.name} is an ensemble: give its members, in {folder}/{MEMBERS}")
    if len(bundle.outputs) > 1:
        raise InputError(
            f"{bundle.name} gives {len(bundle.outputs)} logits ({', '.join(bundle.outputs)}): "
            "build each of its detectors by itself"
        )
    return bundle


def _link(source: str, target: str) -> None:
    """A second name for the same bytes, where the file system can: graphs may be gigabytes.

    A rebuilt bundle has new files, so the ensemble keeps what it was made of.
    """
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def write_ensemble(ensemble: Ensemble, folder: Path) -> None:
    """Write the record of an ensemble whose members are in `folder` already."""
    text = json.dumps(ensemble.to_json(), indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", errors="surrogateescape")


def members_of(bundle: Bundle | Ensemble) -> tuple[Bundle, ...]:
    """The networks: an ensemble's members, or the bundle itself."""
    return bundle.members if isinstance(bundle, Ensemble) else (bundle,)


def open_any(folder: Path) -> Bundle | Ensemble:
    """Read a bundle or an ensemble, and check its files against their hashes.

    Raises BundleError when it is neither, of another schema, incomplete or altered.
    """
    record = read_record(folder)
    return _open_ensemble(record, folder) if MEMBERS in record else open_bundle(folder)


def _open_ensemble(record: dict[str, Any], folder: Path) -> Ensemble:
    try:
        hashes = {str(name): str(sha256) for name, sha256 in record[MEMBERS].items()}
        vote = Vote(record["combine"], tuple(record["weights"]), record["threshold"])
        name = str(record["name"])
        if not hashes or len(vote.weights) != len(hashes):
            raise ValueError("it has not one weight per member")
        if any(Path(member).name != member for member in hashes):
            raise ValueError("a member's name is a path")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / RECORD} is damaged ({error}): build it again") from error
    members = []
    for member, sha256 in hashes.items():
        path = folder / MEMBERS / member
        if not (path / RECORD).is_file() or sha256_file(path / RECORD) != sha256:
            raise BundleError(f"{path} is not the member that {folder} was made of: make it again")
        members.append(open_bundle(path))
    return Ensemble(name, vote, tuple(members), folder)
