"""The last steps of every build: plans, the comparison with the reference, the record."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import trtdet
from trtdet.build.compile import compile_bundle
from trtdet.calibration.ranges import RANGES
from trtdet.engine.backends import BackendStatus, open_session
from trtdet.engine.bundle import GATE, GRAPH, PLANS, PROBES, Bundle, read_record, write_record
from trtdet.engine.digest import sha256_file
from trtdet.engine.plans import stored_plans
from trtdet.errors import BundleError

OnStage = Callable[[str], None]

_KERNELS = "kernels"  # as in `trtdet.engine.kernels`


def keep_plans(old: Path, new: Path) -> None:
    """Take over the compiled plans of a bundle's last build that are of the very same graph.

    And its CUDA kernels, which are of no graph.
    """
    if (old / _KERNELS).is_dir():
        shutil.copytree(old / _KERNELS, new / _KERNELS)
    graph = sha256_file(new / GRAPH)
    for plan in stored_plans(old / PLANS):
        if plan.key.graph_sha256 == graph:
            (new / PLANS).mkdir(exist_ok=True)
            for file in (plan.path, plan.path.with_suffix(".json")):
                shutil.copy2(file, new / PLANS)


def warn_of_decision(old: Path, on_stage: OnStage) -> None:
    """Say that a fitted decision goes with the bundle that is replaced."""
    try:
        fitted = read_record(old).get("decision_record")
    except BundleError:
        return
    if fitted:
        on_stage("decision   the one fitted to the old bundle goes: `trtdet calibrate decision`")


def with_hashes(bundle: Bundle) -> Bundle:
    """The bundle with the hashes of its files, which are all written."""
    names = [name for name in (GRAPH, PROBES, RANGES, GATE) if (bundle.path / name).is_file()]
    return replace(bundle, hashes={name: sha256_file(bundle.path / name) for name in names})


def compile_plans(bundle: Bundle, targets: Iterable[str], on_stage: OnStage) -> None:
    """Compile the bundle's graph for compute capabilities such as sm_86."""
    for target in targets:
        compile_bundle(bundle, target, on_progress=lambda line: on_stage(f"plan       {line}"))


def write_compared(
    bundle: Bundle, backend: BackendStatus, reference: str, on_stage: OnStage
) -> Bundle:
    """Compare the bundle's engine with its probes' logits; the bundle with its drift, written.

    Raises DriftError where they differ by more than the bundle's tolerance.
    """
    if bundle.precision != "fp32":
        reference = "the engine that was judged,"
    session, drift = open_session(backend, bundle, batch=bundle.batch)
    session.close()
    on_stage(
        f"compare    {drift.backend} against {reference} on the probes: logits within "
        f"{drift.max_abs:.2g}, {drift.max_relative:.1g} of 1 + |logit| (limit {bundle.tolerance:g})"
    )
    compared = replace(bundle, drift=asdict(drift))
    write_record(compared, bundle.path)
    return compared


def tool_versions(*tools: str) -> dict[str, str]:
    """What a bundle was made with, for its record."""
    return {
        "trtdet": trtdet.__version__,
        "python": platform.python_version(),
        **{tool: version(tool) for tool in tools},
    }
