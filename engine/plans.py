"""The plans of a bundle: written under their keys, and found again by what wants to run one.

    plans/<name>.plan   the plan
    plans/<name>.json   its key, and its hash: a plan without a record, or another's, is no plan;
                        and once it was judged, the probes' logits that it gave, and the verdict

A bundle whose folder cannot be written has its plans in the store, by the hash of its graph; both
places are looked in. Only plans that this store compiled are loaded, see `trtdet.engine.built`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.atomic import atomic_text
from trtdet.engine.built import OnLine, own_place, read_code, writable_place, write_code
from trtdet.engine.plan_fit import differences
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.store import store_folder
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import InputError, PlanMissError


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
    probe_logits: NDArray[np.float32] | None = None  # [P, K], as it gave them when it was judged
    verdict: str = ""  # in words; "": never judged


@dataclass(frozen=True)
class StoredPlan:
    """A plan's file with what its record says; the file was not read."""

    key: PlanKey
    path: Path
    plan_sha256: str
    written_ns: int
    probe_logits: NDArray[np.float32] | None = None
    verdict: str = ""


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
        _write_record(path, record)
    except OSError as error:
        raise InputError(f"cannot write the plan {path}: {error}") from error
    return path


def record_judged(path: Path, probe_logits: NDArray[np.float32], verdict: str) -> None:
    """Note in the record of the plan at `path` what it gave, float32 [P, K], and was found to be.

    Raises InputError where the record is not that plan's, or cannot be written.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        if record["plan_sha256"] != sha256(path.read_bytes()).hexdigest():
            raise ValueError("it is another plan's")
        judged = {"probe_logits": np.asarray(probe_logits, np.float32).tolist(), "verdict": verdict}
        _write_record(path, {**record, **judged})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot write the record of the plan {path}: {error}") from error


def remove_plan(path: Path) -> None:
    """Take a plan and its record away, as far as they are there."""
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def find_plan(
    plans_dir: Path,
    wanted: WantedPlan,
    *,
    trust: bool = False,
    on_line: OnLine = lambda _line: None,
    only: Path | None = None,
) -> FoundPlan:
    """The newest plan that `wanted` can run, of a bundle whose plans are in `plans_dir`.

    `only`: this very file, wherever it lies, or none. `trust` takes plans that were compiled
    elsewhere, too; `on_line` hears why one is passed over.
    Raises PlanMissError with what is another in the nearest plan.
    """
    if only is None:
        folders = plan_folders(plans_dir, wanted.graph_sha256)
        stored = [plan for folder in folders for plan in stored_plans(folder, on_line)]
    else:
        stored = [plan for plan in [_read_record(only.with_suffix(".json"), on_line)] if plan]
    stored.sort(key=lambda plan: plan.written_ns, reverse=True)
    for plan in stored:
        if differences(plan.key, wanted):
            continue
        data = read_code(plan.path, trust, on_line, expected=plan.plan_sha256)
        if data is not None:
            return FoundPlan(plan.key, plan.path, data, plan.probe_logits, plan.verdict)
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
        if (plan := _read_record(path, on_line)) is not None:
            yield plan


def plan_folders(plans_dir: Path, graph_sha256: str) -> tuple[Path, Path]:
    """Where the plans of a graph can be: in the bundle, and in the store."""
    return plans_dir, store_folder() / "plans" / graph_sha256


def writable_folder(plans_dir: Path, graph_sha256: str) -> Path:
    """Where a new plan of the graph goes: into the bundle, or else into the store."""
    return writable_place(*plan_folders(plans_dir, graph_sha256))


def _write_record(path: Path, record: dict[str, Any]) -> None:
    """The record of the plan at `path`. Raises OSError."""
    with atomic_text(own_place(path.with_suffix(".json"))) as text:
        text.write(f"{json.dumps(record, indent=2)}\n")


def _read_record(path: Path, on_line: OnLine) -> StoredPlan | None:
    """What a record says of the plan beside it; None where there is no plan, or it is damaged."""
    plan = path.with_suffix(".plan")
    try:
        record = json.loads(path.read_bytes())
        key, digest = PlanKey.from_json(record["key"]), str(record["plan_sha256"])
        verdict, logits = record.get("verdict", ""), record.get("probe_logits")
        if not isinstance(verdict, str) or not verdict.isprintable():
            raise ValueError("a verdict that is no text")
        if logits is not None:
            logits = np.asarray(logits, np.float32)
            if logits.ndim != 2:
                raise ValueError("logits that are no table")
        written_ns = plan.stat().st_mtime_ns
    except FileNotFoundError:  # it was being replaced
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        on_line(f"{path} is damaged ({error}): its plan is not used")
        return None
    return StoredPlan(key, plan, digest, written_ns, logits, verdict)


def _miss(plans_dir: Path, wanted: WantedPlan, stored: list[StoredPlan]) -> str:
    """What is missing, what is nearest to it, and the command that makes it."""
    command = f"trtdet compile {shlex.quote(str(plans_dir.parent))} --target current"
    if wanted.tile is None and wanted.batch is not None:
        command += f" --batch {max(1, wanted.batch // wanted.views)}"
    if wanted.flavour == "tensorrt-rtx":
        command += " --flavour tensorrt-rtx"
    if wanted.lean:
        command += " --version-compatible"
    near = [(differences(plan.key, wanted), plan) for plan in stored]
    if not near:
        reason = f"there is none in {plans_dir}"
    else:
        parts, plan = min(near, key=lambda each: len(each[0]))
        differs = "; ".join(parts) or "it was not compiled here, or it is damaged"
        reason = f"the nearest, {plan.path.name}, is not it ({differs})"
    return f"no plan for {wanted}: {reason}. Compile one: `{command}`"
