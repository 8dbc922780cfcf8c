"""The bundles that are measured: copies of those that were given, or built here.

Nothing of the user's is written: plans and kernels go into the copies, which lie in `work/bundles`
and share their graphs' bytes with what they were copied from, where the disk can do that. A later
run with the same folder finds them there.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from trtdet.benchmarks.gpu_compiled import need_engine
from trtdet.benchmarks.gpu_section import Bench, MissingError, Request, Values
from trtdet.engine.bundle import PLANS, Bundle, open_bundle
from trtdet.engine.store import RECORD, STARTER, starter_bundle
from trtdet.errors import BundleError, InputError

PRECISIONS = ("fp32", "fp16", "int8", "auto")

# Built from random weights where no bundles were given, beside the starter, as MODEL:PRECISION.
# A resizing ResNet, which computes little for each byte, and a large transformer.
DEFAULT_BUILDS = ("npr:fp32", "rine:fp32", "npr:fp16", "rine:fp16", "npr:int8", "rine:int8")


def run(bench: Bench) -> None:
    """A row for each bundle. Raises MissingError where nothing could run those of the default."""
    request = bench.request
    if not (request.asked or request.bundles):
        try:
            need_engine()
        except MissingError as error:
            hint = "`--only bundles` builds them all the same, for another machine"
            raise MissingError(f"{error}. {hint}") from error
    folder = _folder(request)
    wanted = {_name(source, request.bundles): source for source in request.bundles}
    if not wanted:
        wanted[STARTER] = str(starter_bundle())
    builds = {build.replace(":", "-"): build for build in request.builds}
    if folder.is_dir():
        for old in folder.iterdir():  # of a run that measured others
            if old.name not in wanted.keys() | builds.keys():
                shutil.rmtree(old)
    for name, source in wanted.items():
        bench.row(name, partial(_copy, Path(source), folder / name))
    for name, build in builds.items():
        bench.row(name, partial(_build, build, folder / name, request.calibration))


def open_bundles(request: Request) -> list[Bundle]:
    """The bundles to measure, in the order of their names. Raises MissingError for none."""
    folder = _folder(request)
    found = [open_bundle(each.parent) for each in sorted(folder.glob(f"*/{RECORD}"))]
    if not found:
        raise MissingError("there are no bundles: the section `bundles` says why")
    return found


def reference_of(bundle: Bundle, bundles: Sequence[Bundle]) -> Bundle | None:
    """The float32 bundle of the same weights and input, if it is among these."""
    for other in bundles:
        same = (other.checkpoint, other.geometry, other.outputs) == (
            bundle.checkpoint,
            bundle.geometry,
            bundle.outputs,
        )
        if other.precision == "fp32" and same:
            return other
    return None


def check_builds(builds: Sequence[str]) -> tuple[str, ...]:
    """`MODEL:PRECISION`, each. Raises InputError."""
    for build in builds:
        model, _, precision = build.partition(":")
        if not model or precision not in PRECISIONS:
            raise InputError(f"--build {build}: give MODEL:PRECISION, for instance rine:fp16")
    return tuple(builds)


def _folder(request: Request) -> Path:
    return request.work / "bundles"


def _name(source: str, sources: Sequence[str]) -> str:
    """The folder's name, with a number where another has the same."""
    alike = [each for each in sources if Path(each).name == Path(source).name]
    name = Path(source).name
    return name if len(alike) == 1 else f"{name}-{alike.index(source) + 1}"


def _copy(source: Path, target: Path, found: Values) -> None:
    theirs = open_bundle(source)
    with suppress(BundleError):
        if open_bundle(target).hashes == theirs.hashes:
            found["kept"] = "it is there already"
            _describe(target, found)
            return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns(PLANS, "kernels"), copy_function=_link
    )
    _describe(target, found)


def _link(source: str, target: str) -> None:
    """No file of a bundle is ever written in place, so the other stays as it was."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _build(build: str, target: Path, calibration: Path | None, found: Values) -> None:
    with suppress(BundleError):
        _describe(target, found)
        found["kept"] = "it is there already"
        return
    try:
        from trtdet.benchmarks.gpu_weights import write_checkpoint
        from trtdet.build.assemble import BuildRequest, build_bundle
        from trtdet.build.detectors.registry import find_detector
        from trtdet.build.material import PrecisionRequest
    except ImportError as error:
        raise MissingError(f"it cannot be built here: {error}") from error
    model, _, precision = build.partition(":")
    spec = find_detector(model)
    weights = target.parent.parent / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    checkpoint, backbone = write_checkpoint(spec, spec.variants[0], weights)
    asked = PrecisionRequest(
        precision=precision,  # type: ignore[arg-type]  # `check_builds` has looked
        calibration=calibration,
        report_only=True,  # random weights keep no limits: what they cost here is no finding
    )
    request = BuildRequest(
        model,
        (checkpoint,),
        spec.variants[0].name,
        backbone,
        name=target.name,
        out=target,
        precision=asked,
    )
    build_bundle(request, on_stage=lambda line: print(line, file=sys.stderr))
    found["build s"] = time.monotonic() - started
    _describe(target, found)


def _describe(target: Path, found: Values) -> None:
    bundle = open_bundle(target)
    found |= {
        "detector": bundle.detector,
        "precision": bundle.precision,
        "input": str(bundle.geometry),
        "batch": bundle.batch,
        "graph MB": bundle.graph.stat().st_size / 1e6,
    }
    if report := bundle.precision_report:
        found["verdict"] = report.get("verdict", "")
