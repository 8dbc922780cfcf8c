"""The plans of a bundle: written under their keys, and found again by what wants to run one.

    plans/<name>.plan   the plan
    plans/<name>.json   its key, and its hash: a plan without a record, or another's, is no plan

A bundle whose folder cannot be written has its plans in the store, by the hash of its graph; both
places are looked in. Only plans that this store compiled are loaded, see `trtdet.engine.built`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trtdet.engine.atomic import atomic_text, check_writable
from trtdet.engine.built import OnLine, read_code, write_code
from trtdet.engine.plan_key import COMPILED_ON, SCHEMA, VERSION_COMPATIBLE, PlanKey
from trtdet.engine.store import starter_bundle, store_folder
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import InputError, PlanMissError

# (built with, run with): within a major version a version-compatible plan runs on later versions.
# https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
_MAJORS_CROSSED = {(10, 11)}


@dataclass(frozen=True)
class Plan:
    """A compiled plan, and what it was compiled from and for."""

    key: PlanKey
    data: bytes


@dataclass(frozen=True)
class WantedPlan:
    """What a session needs of a plan. Other settings of the builder do not matter to it."""

    flavour: Flavour
    version: str
    target: str  # the GPU's compute capability, for instance "sm_86"
    graph_sha256: str
    batch: int | None  # of the graph's input: images times views; None: any
    views: int = 1
    tile: int | None = None  # pixels: at native resolution, the longest side of a tile
    device: str | None = None  # the GPU's name: kernels that were timed on another are not wanted
    lean: bool = False  # the runtime takes nothing but version-compatible plans

    def __str__(self) -> str:
        size = f"batches of {self.batch or 'any size'}"
        if self.tile is not None:
            size = f"tiles of {self.tile} pixels"
        return (
            f"{self.flavour}{' lean' if self.lean else ''} {self.version} on {self.target}, {size}"
        )


@dataclass(frozen=True)
class FoundPlan:
    """A plan that was found, and is ours: `data` are the very bytes that were checked."""

    key: PlanKey
    path: Path
    data: bytes


@dataclass(frozen=True)
class StoredPlan:
    """A plan's file with what its record says; the file was not read."""

    key: PlanKey
    path: Path
    plan_sha256: str
    written_ns: int


def write_plan(plans_dir: Path, plan: Plan) -> Path:
    """Put a plan and its record into `plans_dir`, in place of older ones; returns the plan's path.

    The record comes last: what it describes is there. Raises InputError when it cannot be written.
    """
    path = plans_dir / plan.key.file_name
    record = {
        "key": plan.key.to_json(),
        "plan_sha256": sha256(plan.data).hexdigest(),
        "size_bytes": len(plan.data),
    }
    try:
        write_code(path, plan.data)
        with atomic_text(path.with_suffix(".json")) as text:
            text.write(f"{json.dumps(record, indent=2)}\n")
    except OSError as error:
        raise InputError(f"cannot write the plan {path}: {error}") from error
    return path


def find_plan(
    plans_dir: Path,
    wanted: WantedPlan,
    *,
    trust: bool = False,
    on_line: OnLine = lambda _line: None,
) -> FoundPlan:
    """The newest plan that `wanted` can run, of a bundle whose plans are in `plans_dir`.

    `trust` takes plans that were compiled elsewhere, too; `on_line` hears why one is passed over.
    Raises PlanMissError with what is another in the nearest plan.
    """
    folders = plan_folders(plans_dir, wanted.graph_sha256)
    stored = [plan for folder in folders for plan in stored_plans(folder, on_line)]
    stored.sort(key=lambda plan: plan.written_ns, reverse=True)
    for plan in stored:
        if _differences(plan.key, wanted):
            continue
        data = read_code(plan.path, trust, on_line, expected=plan.plan_sha256)
        if data is not None:
            return FoundPlan(plan.key, plan.path, data)
    raise PlanMissError(_miss(plans_dir, wanted, stored))


def stored_plan(plans_dir: Path, key: PlanKey) -> Path | None:
    """A plan of this very key that the store compiled: where it is, whole."""
    for folder in plan_folders(plans_dir, key.graph_sha256):
        for plan in stored_plans(folder):
            if plan.key == key and read_code(plan.path, expected=plan.plan_sha256) is not None:
                return plan.path
    return None


def stored_plans(folder: Path, on_line: OnLine = lambda _line: None) -> Iterator[StoredPlan]:
    """Every plan in `folder` that has a record; `on_line` hears of records that are damaged."""
    for path in sorted(folder.glob("*.json")):
        plan = path.with_suffix(".plan")
        try:
            record = json.loads(path.read_bytes())
            key, digest = PlanKey.from_json(record["key"]), str(record["plan_sha256"])
            written_ns = plan.stat().st_mtime_ns
        except FileNotFoundError:  # it was being replaced
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            on_line(f"{path} is damaged ({error}): its plan is not used")
            continue
        yield StoredPlan(key, plan, digest, written_ns)


def plan_folders(plans_dir: Path, graph_sha256: str) -> tuple[Path, Path]:
    """Where the plans of a graph can be: in the bundle, and in the store."""
    return plans_dir, store_folder() / "plans" / graph_sha256


def writable_folder(plans_dir: Path, graph_sha256: str) -> Path:
    """Where a new plan of the graph goes: into the bundle, or else into the store.

    The bundle that comes with the package stays as it was installed.
    """
    own, stored = plan_folders(plans_dir, graph_sha256)
    if own.parent == starter_bundle():
        return stored
    try:
        check_writable((own if own.exists() else own.parent) / "plan")
    except OSError:
        return stored
    return own


def _differences(key: PlanKey, wanted: WantedPlan) -> list[str]:
    """In words, what keeps `wanted` from running a plan; the weightiest first."""
    there, here = key.option(COMPILED_ON), wanted.device
    least, most = key.batches
    parts = []
    if key.schema != SCHEMA:
        parts.append(f"plans of another trtdet: schema {key.schema} there, {SCHEMA} here")
    if key.graph_sha256 != wanted.graph_sha256:
        parts.append("another graph: the bundle was built again")
    if key.flavour != wanted.flavour:
        parts.append(f"another library: {key.flavour} there, {wanted.flavour} here")
    elif not _version_fits(key, wanted):
        parts.append(_version_difference(key, wanted))
    if key.target != wanted.target:
        parts.append(f"another GPU: {key.target} there, {wanted.target} here")
    elif there is not None and here is not None and there != here:
        parts.append(f"another GPU: {there} there, {here} here")
    if (key.sides is None) != (wanted.tile is None):
        parts.append("another kind of input: images of one size, or tiles")
    elif key.sides and wanted.tile and not key.sides[0] <= wanted.tile <= key.sides[1]:
        parts.append(f"other tiles: up to {key.sides[1]} pixels there, {wanted.tile} here")
    if wanted.batch is not None and not least <= wanted.batch <= most:
        batches = f"{least}" if least == most else f"{least} to {most}"
        parts.append(f"another batch: {batches} there, {wanted.batch} here")
    return parts


def _version_fits(key: PlanKey, wanted: WantedPlan) -> bool:
    compatible = key.option(VERSION_COMPATIBLE) is not None
    if key.version == wanted.version:
        return compatible or not wanted.lean
    if not compatible:
        return False
    there, here = _release(key.version), _release(wanted.version)
    return there <= here if there[0] == here[0] else (there[0], here[0]) in _MAJORS_CROSSED


def _version_difference(key: PlanKey, wanted: WantedPlan) -> str:
    if key.version == wanted.version:
        return "no leave for the lean runtime: it was compiled without --version-compatible"
    return f"another TensorRT version: {key.version} there, {wanted.version} here"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)) or (0,)


def _miss(plans_dir: Path, wanted: WantedPlan, stored: list[StoredPlan]) -> str:
    """What is missing, what is nearest to it, and the command that makes it."""
    command = f"trtdet compile {shlex.quote(str(plans_dir.parent))} --target current"
    if wanted.tile is None and wanted.batch is not None:
        command += f" --batch {max(1, wanted.batch // wanted.views)}"
    if wanted.flavour == "tensorrt-rtx":
        command += " --flavour tensorrt-rtx"
    if wanted.lean:
        command += " --version-compatible"
    near = [(_differences(plan.key, wanted), plan) for plan in stored]
    if not near:
        reason = f"there is none in {plans_dir}"
    else:
        parts, plan = min(near, key=lambda each: len(each[0]))
        differs = "; ".join(parts) or "it was not compiled here, or it is damaged"
        reason = f"the nearest, {plan.path.name}, is not it ({differs})"
    return f"no plan for {wanted}: {reason}. Compile one: `{command}`"
