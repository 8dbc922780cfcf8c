"""From a float32 graph to the precision that was asked for, judged on images it never saw.

FP16 and INT8 are graphs like the first, see `trtdet.build.precision` and
`trtdet.calibration.quantize`. Nothing is taken on trust: each is run on the gate's images and
compared with the network's own float32 logits, then timed beside the float32 graph.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from trtdet.build.float_graph import FloatGraph, read_float_graph
from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest, seen
from trtdet.build.placing import OnStage
from trtdet.calibration.gate import Comparison
from trtdet.calibration.quantize import count_layers
from trtdet.calibration.ranges import write_ranges
from trtdet.calibration.search import Search, search_groups
from trtdet.engine.bundle import GRAPH, Bundle, Probes, load_probes, save_probes
from trtdet.errors import InputError, PrecisionError, WeightsError

# `auto` takes fewer bits only where they make it so much faster.
WORTHWHILE = 1.05

# Images that tell how much harm a group does: of those that ranges came from, not the gate's.
_SENSITIVITY_IMAGES = 16

ON_A_GPU = "unverified on a GPU"

# A bundle allows less than 1 * (1 + |logit|), or its probes would prove nothing.
LARGEST_TOLERANCE = 0.99

# Of the limit on 99 % of the logits, the part that another machine's rounding may take.
STEADINESS = 0.2


@dataclass(frozen=True)
class _Candidate:
    precision: str
    path: Path
    compared: dict[str, Comparison]
    failures: list[str]
    search: Search | None = None


def make_precise(
    bundle: Bundle, request: PrecisionRequest, judge: Judge, old: Path, on_stage: OnStage
) -> Bundle:
    """Replace the bundle's float32 graph by the one that was asked for, and say how near it is.

    The bundle comes back with its precision, the report, and the tolerance that its probes need;
    these have the chosen engine's own logits from here on.
    `old` is the folder of the bundle's last build, whose ranges are taken over where they still
    hold. Raises PrecisionError where the limits are not kept, InputError where nothing can be in 8
    bits.
    """
    folder = bundle.path
    source = read_float_graph(
        bundle.graph, judge.frame, judge.material, request.method, old, on_stage
    )
    if request.precision in ("fp16", "int8") and not source.ranges.largest:
        raise InputError(
            "this network has nothing to compute in fewer bits: its work is in its front and its "
            "head, see docs/precision.md. Build it as it is"
        )
    if request.precision == "int8" and not source.sites:
        raise InputError(
            "this network has no layer that 8 bits would speed up, see docs/precision.md: build it "
            "with --fp16, or as it is"
        )
    candidates = list(_candidates(folder, source, request, judge, on_stage))
    rates = _rates(folder, source, candidates, judge, on_stage)
    chosen = _choose(candidates, rates, request, judge)
    if request.precision == "auto":
        on_stage(f"chosen     {chosen.precision}")
    for candidate in candidates:
        if candidate is chosen:
            candidate.path.replace(folder / GRAPH)
        elif candidate.path.name != GRAPH:
            candidate.path.unlink()
    if chosen.precision == "int8":
        write_ranges(source.ranges, folder)
    if chosen.precision == "fp32":
        report = _report(bundle.graph, source, candidates, chosen, rates, request, judge)
        return replace(bundle, precision_report=report)
    # The gate has shown that this engine is near the network; what is opened later must be it.
    probes = load_probes(folder)
    own = judge.logits(bundle.graph, [image[None] for image in probes.images])
    save_probes(Probes(probes.images, own), folder)
    return replace(
        bundle,
        precision=chosen.precision,
        precision_report=_report(bundle.graph, source, candidates, chosen, rates, request, judge),
        tolerance=_tolerance(bundle, request, judge, own),
    )


def _candidates(
    folder: Path, source: FloatGraph, request: PrecisionRequest, judge: Judge, on_stage: OnStage
) -> Iterator[_Candidate]:
    """Those that the request is about, each judged."""
    if request.precision == "auto":
        yield _judged("fp32", folder / GRAPH, request, judge, on_stage)
    if request.precision in ("auto", "fp16"):
        path = _write(source.half(), folder / "fp16.onnx")
        yield _judged("fp16", path, request, judge, on_stage)
    if request.precision == "int8" or (request.precision == "auto" and source.sites):
        path = write_eight(source, (), folder / "int8.onnx", judge)
        first = _judged("int8", path, request, judge, on_stage)
        if first.failures and judge.material.gated and not request.report_only:
            first = _searched(first, source, request, judge, on_stage)
        yield first


def _judged(
    precision: str, path: Path, request: PrecisionRequest, judge: Judge, on_stage: OnStage
) -> _Candidate:
    compared = judge.compare(path)
    for name, each in compared.items():
        what = f"{precision} {name}" if len(compared) > 1 else precision
        on_stage(
            f"gate       {what}: 99 % of {each.images} logits within {each.p99:.3f} deviations, "
            f"{each.flips.value:.1%} of decisions changed, rank correlation "
            f"{each.rank_correlation:.5f}, largest change {each.largest:.3g}" + _labelled(each)
        )
    return _Candidate(precision, path, compared, judge.failures(compared, request.limits))


def _labelled(compared: Comparison) -> str:
    """What labels tell, where there are any: the network's figures, then the engine's."""
    if compared.auc is None or compared.balanced_accuracy is None:
        return ""
    auc, accuracy = (f"{a:.4f}, {b:.4f}" for a, b in (compared.auc, compared.balanced_accuracy))
    return f"; AUC {auc}; balanced accuracy {accuracy}"


def _searched(
    failed: _Candidate,
    source: FloatGraph,
    request: PrecisionRequest,
    judge: Judge,
    on_stage: OnStage,
) -> _Candidate:
    """The network with its most harmful groups back in float16, so that it passes."""
    on_stage(f"search     {'; '.join(failed.failures)}: which groups are to blame?")
    images = [
        seen(each, judge.frame.geometry, judge.frame.tiling)
        for each in judge.material.chosen.of("calibration")[:_SENSITIVITY_IMAGES]
    ]
    expected = judge.logits(failed.path.with_name(GRAPH), images)
    found: dict[int, dict[str, Comparison]] = {}

    def sensitivity(group: str) -> float:
        others = [each for each in source.groups if each != group]
        path = write_eight(source, others, failed.path, judge)
        return judge.error(path, images, expected)

    def failures(kept: Collection[str]) -> list[str]:
        found[len(kept)] = judge.compare(write_eight(source, kept, failed.path, judge))
        return judge.failures(found[len(kept)], request.limits)

    try:
        search = search_groups(
            source.groups,
            sensitivity,
            failures,
            minutes=request.search_minutes,
            on_line=lambda line: on_stage(f"search     {line}"),
        )
    except PrecisionError as error:
        if request.precision == "auto":  # there are others to choose from
            on_stage(f"search     {error}")
            write_eight(source, (), failed.path, judge)  # the one that was judged
            return failed
        raise
    write_eight(source, search.kept, failed.path, judge)
    return _Candidate("int8", failed.path, found[len(search.kept)], [], search)


def _rates(
    folder: Path,
    source: FloatGraph,
    candidates: list[_Candidate],
    judge: Judge,
    on_stage: OnStage,
) -> dict[str, float]:
    """Images per second of every precision, measured one after the other."""
    paths = {"fp32": folder / GRAPH} | {each.precision: each.path for each in candidates}
    spare = None
    if "fp16" not in paths:
        spare = paths["fp16"] = _write(source.half(), folder / "fp16.onnx")
    rates = {name: judge.rate(path) for name, path in sorted(paths.items(), reverse=True)}
    if spare is not None:
        spare.unlink()
    each = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    on_stage(f"speed      images per second on {judge.backend.name}: {each}")
    if "int8" in rates and rates["int8"] < max(rates["fp32"], rates["fp16"]):
        on_stage("speed      INT8 is slower here than the graph that it was made from")
    return rates


def _choose(
    candidates: list[_Candidate],
    rates: dict[str, float],
    request: PrecisionRequest,
    judge: Judge,
) -> _Candidate:
    """The one asked for if it passes; of several the fastest that passes."""
    if request.precision != "auto":
        (only,) = candidates
        if only.failures and not request.report_only:
            raise PrecisionError(
                f"the {only.precision} engine is not near enough: {'; '.join(only.failures)}. "
                "Raise the limits, or go on with --report-only"
            )
        return only
    best = candidates[0]  # float32
    for each in candidates[1:]:
        passes = not each.failures and (judge.material.gated or each.precision != "int8")
        if passes and rates[each.precision] > WORTHWHILE * rates[best.precision]:
            best = each
    return best


def _tolerance(
    bundle: Bundle, request: PrecisionRequest, judge: Judge, own: NDArray[np.float32]
) -> float:
    """How far the probes may lie from the judged engine's logits wherever the bundle is opened."""
    deviation = float(judge.reference.std(axis=0).min())  # raw, as the probes are
    smallest = 1.0 + float(np.abs(own).min())
    rounding = STEADINESS * request.limits.p99 * deviation / smallest
    return min(bundle.tolerance + rounding, LARGEST_TOLERANCE)


def _report(
    graph: Path,
    source: FloatGraph,
    candidates: list[_Candidate],
    chosen: _Candidate,
    rates: dict[str, float],
    request: PrecisionRequest,
    judge: Judge,
) -> dict[str, Any]:
    """All that was measured, for `bundle.json` and `trtdet inspect --precision`."""
    images = judge.material.chosen
    verdict = "passed" if judge.material.gated else "not gated: too few images"
    if chosen.failures:
        beyond = f"beyond its limits, kept for --report-only: {'; '.join(chosen.failures)}"
        verdict = beyond if judge.material.gated else f"{verdict}; {beyond}"
    search = chosen.search
    return {
        "verdict": verdict,
        "backend": f"{judge.backend.name} {judge.backend.version}",
        "gpu": "" if chosen.precision == "fp32" else ON_A_GPU,
        "images": {
            "sha256": images.sha256,
            "generated": images.generated,
            "calibration": len(images.of("calibration")),
            "gate": len(images.of("gate")),
        },
        "method": request.method,
        "limits": asdict(request.limits),
        "layers_in_8_bits": count_layers(onnx.load(graph)),
        "kept_in_float16": list(search.kept) if search else [],
        "sensitivity": dict(search.ranking) if search else {},
        "float32_for_range": source.too_large,
        "compared": {
            each.precision: {name: _finite(asdict(one)) for name, one in each.compared.items()}
            for each in candidates
        },
        "images_per_s": {name: round(rate, 3) for name, rate in rates.items()},
    }


def _finite(record: Any) -> Any:
    """The record for JSON, which has no infinity: None in its place."""
    if isinstance(record, dict):
        return {key: _finite(value) for key, value in record.items()}
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record


def write_eight(source: FloatGraph, kept: Collection[str], path: Path, judge: Judge) -> Path:
    """The graph in 8 bits, but for the layers that the backend has no 8-bit kernel for."""
    impossible: set[str] = set()
    while True:
        _write(source.eight(kept, impossible), path)
        try:
            judge.open(path).close()
        except WeightsError as error:
            named = {name for layer in error.layers for name in layer.split(",")}
            more = {site.weight for site in source.sites if f"{site.weight}_dq" in named}
            if more <= impossible:
                raise
            impossible |= more
        else:
            return path


def _write(graph: ModelProto, path: Path) -> Path:
    onnx.save(graph, path)
    return path
