"""From a float32 graph to the precision that was asked for, judged on images it never saw.

FP16 and INT8 are graphs like the first, see `trtdet.build.precision` and
`trtdet.calibration.quantize`. Nothing is taken on trust: each is run on the gate's images and
compared with the network's own float32 logits, then timed beside the float32 graph.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.build.candidates import Candidate, make_candidates, write_graph
from trtdet.build.float_graph import FloatGraph, read_float_graph
from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest
from trtdet.build.placing import OnStage
from trtdet.build.precision_report import make_report
from trtdet.calibration.judged import Judged, write_judged
from trtdet.calibration.ranges import write_ranges
from trtdet.engine.bundle import GRAPH, Bundle, Probes, load_probes, save_probes
from trtdet.errors import InputError, PrecisionError

# `auto` takes fewer bits only where they make it so much faster.
WORTHWHILE = 1.05

# A bundle allows less than 1 * (1 + |logit|), or its probes would prove nothing.
LARGEST_TOLERANCE = 0.99

# Of the limit on 99 % of the logits, the part that another machine's rounding may take.
STEADINESS = 0.2


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
    candidates = list(make_candidates(folder, source, request, judge, on_stage))
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
    report = make_report(
        bundle.detector, bundle.graph, source, candidates, chosen, rates, request, judge
    )
    if chosen.precision == "fp32":
        return replace(bundle, precision_report=report)
    material = judge.material
    write_judged(
        Judged(
            [each.sha256 for each in material.chosen.of("gate")],
            judge.reference,
            chosen.logits,
            material.labels,
        ),
        folder,
    )
    # The gate has shown that this engine is near the network; what is opened later must be it.
    probes = load_probes(folder)
    own = judge.logits(bundle.graph, [image[None] for image in probes.images])
    save_probes(Probes(probes.images, own), folder)
    return replace(
        bundle,
        precision=chosen.precision,
        precision_report=report,
        tolerance=_tolerance(bundle, request, judge, own),
    )


def _rates(
    folder: Path,
    source: FloatGraph,
    candidates: list[Candidate],
    judge: Judge,
    on_stage: OnStage,
) -> dict[str, float]:
    """Images per second of every precision, measured one after the other."""
    paths = {"fp32": folder / GRAPH} | {each.precision: each.path for each in candidates}
    spare = None
    if "fp16" not in paths:
        spare = paths["fp16"] = write_graph(source.half(), folder / "fp16.onnx")
    rates = {name: judge.rate(path) for name, path in sorted(paths.items(), reverse=True)}
    if spare is not None:
        spare.unlink()
    each = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    on_stage(f"speed      images per second on {judge.backend.name}: {each}")
    if "int8" in rates and rates["int8"] < max(rates["fp32"], rates["fp16"]):
        on_stage("speed      INT8 is slower here than the graph that it was made from")
    return rates


def _choose(
    candidates: list[Candidate],
    rates: dict[str, float],
    request: PrecisionRequest,
    judge: Judge,
) -> Candidate:
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
