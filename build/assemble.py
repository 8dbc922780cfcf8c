"""`trtdet build`: a checkpoint becomes a bundle that was compared with the network in torch.

The bundle appears at its place only after its compiled engine gave the probes' reference logits;
whatever stops the build before that leaves what was there.
"""

from __future__ import annotations

import copy
import json
import platform
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import trtdet
from trtdet.build.checkpoint import Identity, identify, load_into, load_state_dict
from trtdet.build.compile import compile_plan, write_plan
from trtdet.build.detectors.registry import choose_variant, find_detector, is_released
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.build.graph import EngineModule, export_graph, save_graph, simplify_graph
from trtdet.build.probes import make_probes
from trtdet.engine.atomic import atomic_folder
from trtdet.engine.backends import (
    BackendStatus,
    choose_backend,
    compile_graph,
    infer,
    open_session,
    refuse_drift,
)
from trtdet.engine.bundle import (
    GRAPH,
    PLANS,
    PROBES,
    RECORD,
    Bundle,
    Drift,
    Probes,
    load_probes,
    measure_drift,
    save_probes,
    write_record,
)
from trtdet.engine.digest import sha256_file
from trtdet.engine.store import bundle_folder
from trtdet.errors import InputError

OnStage = Callable[[str], None]


@dataclass(frozen=True)
class BuildRequest:
    """What the user asked for."""

    model: str
    weights: Path
    variant: str | None = None  # None: recognised from the weights
    name: str | None = None  # None: the model's, with its variant where there are several
    out: Path | None = None  # the bundle's folder; None: in the store, under its name
    batch: int = 1
    targets: tuple[str, ...] = ()  # compute capabilities to compile TensorRT-RTX plans for


def build_bundle(request: BuildRequest, on_stage: OnStage) -> Bundle:
    """Build, compare and place a bundle. `on_stage` hears one line per stage.

    Raises InputError (unknown detector, a folder in the way), CheckpointError (wrong weights),
    DriftError (the engine does not give the network's logits), BackendError (nothing compiles it).
    """
    spec = find_detector(request.model)
    backend, _rejected = choose_backend("auto")  # what every comparison below runs on
    if request.name is not None:
        bundle_folder(request.name)  # refuses a name that is none, before any work
    on_stage(f"weights    {request.weights}")
    weights = _load_weights(spec, request)
    name = request.name or _default_name(spec, weights.variant)
    out = request.out or bundle_folder(name)
    if out.exists() and not (out / RECORD).is_file() and not _is_empty_folder(out):
        raise InputError(f"{out} exists and is not a bundle: choose another --out")
    with atomic_folder(out) as folder:
        on_stage(f"reference  {spec.name} ({weights.variant.name}) in torch, on generated probes")
        save_probes(_reference(weights.network, spec), folder)
        _write_graph(weights.network, spec, backend, folder, on_stage)
        _keep_plans(out, folder)
        bundle = _describe(spec, weights, request, name, folder)
        for target in request.targets:
            plan = compile_plan(
                bundle.graph,
                target=target,
                batch=bundle.batch,
                on_progress=lambda line: on_stage(f"plan       {line}"),
            )
            write_plan(bundle.plans, plan)
        bundle = replace(bundle, drift=asdict(_compare(bundle, backend, on_stage)))
        write_record(bundle, folder)
    return replace(bundle, path=out)


@dataclass(frozen=True)
class _Weights:
    """A checkpoint in its network, and what is known of it."""

    network: nn.Module
    variant: Variant
    identity: Identity
    released: bool


def _load_weights(spec: DetectorSpec, request: BuildRequest) -> _Weights:
    tensors = load_state_dict(request.weights)
    identity = identify(request.weights, tensors)
    # A wrong file is told by its keys, which all variants share, before a variant is asked for.
    load_into(spec.network(spec.variants[0]), tensors, source=request.weights)
    variant = choose_variant(spec, request.variant, identity)
    network = spec.network(variant).eval()
    load_into(network, tensors, source=request.weights)
    return _Weights(network, variant, identity, is_released(variant, identity))


def _describe(
    spec: DetectorSpec, weights: _Weights, request: BuildRequest, name: str, folder: Path
) -> Bundle:
    """The bundle's record, but for the drift, which is measured through it."""
    variant, normalization = weights.variant, spec.normalization
    return Bundle(
        name=name,
        detector=spec.name,
        variant=variant.name,
        title=spec.title,
        paper=spec.paper,
        repository=spec.repository,
        licence=spec.licence,
        trained_on=variant.trained_on if weights.released else "unknown: not a released checkpoint",
        note=spec.note,
        precision="fp32",
        geometry=spec.geometry,
        normalization={"mean": list(normalization.mean), "std": list(normalization.std)},
        batch=request.batch,
        tolerance=spec.tolerance,
        checkpoint={
            "file": request.weights.name,
            "released": weights.released,
            **asdict(weights.identity),
        },
        hashes={file: sha256_file(folder / file) for file in (GRAPH, PROBES)},
        drift={},
        tools=_tool_versions(),
        path=folder,
    )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _keep_plans(old: Path, new: Path) -> None:
    """Take over the compiled plans of a bundle's last build that are of the very same graph."""
    graph = sha256_file(new / GRAPH)
    for record in sorted((old / PLANS).glob("*.json")):
        plan = record.with_suffix(".plan")
        if plan.is_file() and json.loads(record.read_text())["key"]["graph_sha256"] == graph:
            (new / PLANS).mkdir(exist_ok=True)
            for file in (plan, record):
                shutil.copy2(file, new / PLANS)


def _default_name(spec: DetectorSpec, variant: Variant) -> str:
    only = len(spec.variants) == 1 or variant.name == spec.name
    return spec.name if only else f"{spec.name}-{variant.name}"


def _reference(network: nn.Module, spec: DetectorSpec) -> Probes:
    """The probes with the logits of the network as its paper has it: nothing folded."""
    images = make_probes(spec.geometry.height, spec.geometry.width)
    with torch.inference_mode():
        logits = EngineModule(network, spec.normalization)(torch.from_numpy(images))
    return Probes(images, logits[:, 0].numpy())


def _write_graph(
    network: nn.Module, spec: DetectorSpec, backend: BackendStatus, folder: Path, on_stage: OnStage
) -> None:
    """Fold, export, simplify; the graph's outputs before and after onnxsim must agree."""
    on_stage("export     ONNX, opset 18, uint8 NHWC in, float32 logit out")
    module = EngineModule(spec.simplify(copy.deepcopy(network)), spec.normalization)
    exported = export_graph(module, spec.geometry.height, spec.geometry.width)
    simplified = simplify_graph(exported)
    logits = []
    for graph in (exported, simplified):
        save_graph(graph, folder / GRAPH)
        logits.append(_engine_logits(folder, spec, backend))
    drift = measure_drift(logits[1], logits[0], "onnxsim")
    on_stage(
        f"simplify   {len(exported.graph.node)} nodes to {len(simplified.graph.node)}, "
        f"logits moved by at most {drift.max_abs:.2g}"
    )
    refuse_drift(drift, spec.tolerance, f"{spec.name}'s simplified graph")


def _engine_logits(folder: Path, spec: DetectorSpec, backend: BackendStatus) -> NDArray[np.float32]:
    images = load_probes(folder).images
    session = compile_graph(backend, folder / GRAPH, spec.geometry, batch=len(images), slots=1)
    with closing(session):
        return infer(session, images)


def _compare(bundle: Bundle, backend: BackendStatus, on_stage: OnStage) -> Drift:
    session, drift = open_session(backend, bundle, batch=bundle.batch)
    session.close()
    on_stage(
        f"compare    {drift.backend} against torch on the probes: logits within "
        f"{drift.max_abs:.2g}, {drift.max_relative:.1g} of 1 + |logit| (limit {bundle.tolerance:g})"
    )
    return drift


def _tool_versions() -> dict[str, str]:
    tools = ("torch", "onnx", "onnxscript", "onnxsim", "numpy")
    return {
        "trtdet": trtdet.__version__,
        "python": platform.python_version(),
        **{tool: version(tool) for tool in tools},
    }
