"""`trtdet build --onnx`: a graph from elsewhere becomes a bundle that was compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnx import ModelProto, checker, version_converter

from trtdet.build.finish import finish_bundle
from trtdet.build.foreign import ForeignGraph, read_foreign
from trtdet.build.foreign_graph import engine_graph
from trtdet.build.foreign_reference import Head, run_reference
from trtdet.build.foreign_spec import ForeignSpec, read_spec
from trtdet.build.judge import Judge, graph_logits
from trtdet.build.material import PrecisionRequest, frame_of, gather
from trtdet.build.placing import (
    OnStage,
    tool_versions,
)
from trtdet.build.precision import QUANTIZED_HALF_OPSET, opset_of
from trtdet.build.probes import make_probes
from trtdet.build.simplify import Logits, probe_logits, write_simplified
from trtdet.engine.atomic import atomic_folder
from trtdet.engine.backends import (
    OPENVINO,
    BackendStatus,
    choose_backend,
)
from trtdet.engine.bundle import (
    Bundle,
    measure_drift,
    save_probes,
)
from trtdet.engine.decision import AS_IT_IS, Decision
from trtdet.engine.digest import sha256_file
from trtdet.engine.store import bundle_folder, check_place
from trtdet.errors import BackendError, DriftError, InputError

# A batch that shows whether rows keep apart: not 1, and no divisor of the number of probes.
_BATCH = 3


@dataclass(frozen=True)
class ForeignRequest:
    """What the user asked for."""

    onnx: Path
    spec: Path
    platt: Decision = AS_IT_IS
    name: str | None = None  # None: the spec's
    out: Path | None = None  # the bundle's folder; None: in the store, under its name
    batch: int = 1
    targets: tuple[str, ...] = ()  # compute capabilities to compile TensorRT-RTX plans for
    precision: PrecisionRequest = PrecisionRequest()  # noqa: RUF009 - frozen


def build_foreign(request: ForeignRequest, on_stage: OnStage) -> Bundle:
    """Build, compare and place a bundle. `on_stage` hears one line per stage.

    Raises InputError (a spec or a graph that cannot be, or that do not fit, a folder in the way),
    DriftError (the engine does not give the graph's logits), PrecisionError (fewer bits move them
    too far), BackendError (nothing runs it).
    """
    spec = read_spec(request.spec)
    bits = request.precision.precision
    name = request.name or (spec.name if bits == "fp32" else f"{spec.name}-{bits}")
    stored = bundle_folder(name)  # refuses a name that is none
    out = request.out or stored
    check_place(out)
    backend, _rejected = choose_backend(OPENVINO)
    foreign = read_foreign(request.onnx, spec)
    material = gather(request.precision, spec.geometry, None, on_stage)
    on_stage(f"graph      {foreign}")
    with atomic_folder(out) as folder:
        probes, head = run_reference(foreign, spec, make_probes(*spec.geometry.fixed_size))
        save_probes(probes, folder)
        on_stage(f"reference  the graph as it is; logit from {_source(foreign, spec, head)}")
        try:
            fewer_bits = material is not None
            _write_graph(foreign, spec, head, backend, folder, on_stage, fewer_bits=fewer_bits)
            bundle = _describe(foreign, spec, request, name, folder)
            judge = None
            if material is not None:
                frame = frame_of(bundle)
                reference = graph_logits(bundle.graph, frame, backend, material.gate)
                judge = Judge(frame, material, reference, backend)
            bundle = finish_bundle(
                bundle, judge, request.precision, request.targets, backend, "the graph", out,
                on_stage,
            )  # fmt: skip
        except DriftError as error:
            raise DriftError(f"{error}. {_advice(spec, head)}") from error
    return replace(bundle, path=out)


def _write_graph(
    foreign: ForeignGraph,
    spec: ForeignSpec,
    head: Head,
    backend: BackendStatus,
    folder: Path,
    on_stage: OnStage,
    *,
    fewer_bits: bool,
) -> None:
    """Join and simplify; the graph's outputs before and after onnxsim must agree.

    It is more than a check of onnxsim: OpenVINO was seen to compute a constant If after a Gemm
    wrongly, alike in the reference and here, but not once onnxsim had folded it.
    """

    def join() -> ModelProto:
        joined = engine_graph(foreign, spec, head)
        if fewer_bits:
            joined = modern(joined, foreign.path)
        try:
            checker.check_model(joined)
        except checker.ValidationError as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{foreign.path} is no valid ONNX ({reason}): convert it again"
            ) from error
        return joined

    probe = partial(probe_logits, folder, backend, spec.geometry)
    logits = write_simplified(join, probe, folder, spec.tolerance, on_stage)
    _check_batches(foreign, spec, logits, partial(probe, batch=_BATCH))


def modern(graph: ModelProto, path: Path) -> ModelProto:
    """The graph in the version of ONNX that 8 bits are written in, where it is of an older one."""
    if opset_of(graph) >= QUANTIZED_HALF_OPSET:
        return graph
    try:
        return version_converter.convert_version(graph, QUANTIZED_HALF_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} is of ONNX opset {opset_of(graph)}, and does not convert to "
            f"{QUANTIZED_HALF_OPSET}, which fewer bits need ({reason}): export it anew"
        ) from error


def _check_batches(
    foreign: ForeignGraph,
    spec: ForeignSpec,
    logits: Logits,
    together: Callable[[], Logits],
) -> None:
    """Raise InputError where an image's logit depends on the batch it is in."""
    apart = InputError(
        f"{foreign.path} works on one image at a time: {_BATCH} together do not score as each by "
        "itself. Convert it with a free batch dimension (tf2onnx: a signature with None; torch: "
        "dynamic_shapes)"
    )
    try:
        batched = together()
    except (BackendError, ValueError) as error:  # ValueError: too few rows to be averaged by view
        raise apart from error
    same = batched.shape == logits.shape
    if not same or not measure_drift(batched, logits, "").max_relative <= spec.tolerance:
        raise apart


def _describe(
    foreign: ForeignGraph, spec: ForeignSpec, request: ForeignRequest, name: str, folder: Path
) -> Bundle:
    """The bundle's record, but for the drift, which is measured through it."""
    normalization = {}
    if (scaling := spec.scaling) is not None:
        normalization = {
            "scale": [scaling.scale],
            "mean": list(scaling.mean),
            "std": list(scaling.std),
        }
    return Bundle(
        name=name,
        detector=spec.name,
        variant="onnx",
        title=spec.title,
        paper=spec.paper,
        repository=spec.repository,
        licence=spec.licence,
        trained_on=spec.trained_on,
        note=spec.note,
        precision="fp32",
        geometry=spec.geometry,
        normalization=normalization,
        batch=request.batch,
        tolerance=spec.tolerance,
        checkpoint={
            "file": foreign.path.name,
            "sha256": sha256_file(foreign.path),
            "released": False,
        },
        hashes={},
        drift={},
        tools=tool_versions("onnx", "onnxsim", "openvino", "numpy"),
        decision=request.platt,
        path=folder,
    )


def _source(foreign: ForeignGraph, spec: ForeignSpec, head: Head) -> str:
    if head.tensor != foreign.output.name:
        return f"{head.tensor}, before the last activation"
    if spec.output.meaning in ("probability", "probabilities"):
        return f"the {head.meaning} {head.tensor}: no activation was found, float32 limits them"
    return f"the {head.meaning} {head.tensor}"


def _advice(spec: ForeignSpec, head: Head) -> str:
    if head.meaning in ("probability", "probabilities"):
        return (
            "Near 1 a probability has lost its logit: convert the model without its last "
            "activation, and say so in [output] meaning"
        )
    return f"Where so much is rounding, as in a float16 graph, {spec.path} may give a tolerance"
