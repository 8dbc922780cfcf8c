"""The graphs that a float32 graph can become, each written and judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from trtdet.build.float_graph import FloatGraph
from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest
from trtdet.build.placing import OnStage
from trtdet.calibration.gate import Comparison, failures_of
from trtdet.calibration.search import Search, search_groups
from trtdet.calibration.window import seen
from trtdet.engine.bundle import GRAPH
from trtdet.errors import PrecisionError, WeightsError

# Images that tell how much harm a group does: of those that ranges came from, not the gate's.
_SENSITIVITY_IMAGES = 16


@dataclass(frozen=True)
class Candidate:
    """A graph in a precision, beside the bundle's own, and what the judge said."""

    precision: str
    path: Path
    logits: NDArray[np.float32]  # [G, K] on the gate's images
    compared: dict[str, Comparison]
    failures: list[str]
    search: Search | None = None


def make_candidates(
    folder: Path, source: FloatGraph, request: PrecisionRequest, judge: Judge, on_stage: OnStage
) -> Iterator[Candidate]:
    """Those that the request is about, each judged."""
    if request.precision == "auto":
        yield _judged("fp32", folder / GRAPH, request, judge, on_stage)
    if request.precision in ("auto", "fp16"):
        path = write_graph(source.half(), folder / "fp16.onnx")
        yield _judged("fp16", path, request, judge, on_stage)
    if request.precision == "int8" or (request.precision == "auto" and source.sites):
        path = write_eight(source, (), folder / "int8.onnx", judge)
        first = _judged("int8", path, request, judge, on_stage)
        if first.failures and judge.material.gated and not request.report_only:
            first = _searched(first, source, request, judge, on_stage)
        yield first


def _judged(
    precision: str, path: Path, request: PrecisionRequest, judge: Judge, on_stage: OnStage
) -> Candidate:
    logits = judge.gate(path)
    compared = judge.compare(logits)
    for name, each in compared.items():
        what = f"{precision} {name}" if len(compared) > 1 else precision
        on_stage(
            f"gate       {what}: 99 % of {each.images} logits within {each.p99:.3f} deviations, "
            f"{each.flips.value:.1%} of decisions changed, rank correlation "
            f"{each.rank_correlation:.5f}, largest change {each.largest:.3g}" + _labelled(each)
        )
    return Candidate(precision, path, logits, compared, failures_of(compared, request.limits))


def _labelled(compared: Comparison) -> str:
    """What labels tell, where there are any: the network's figures, then the engine's."""
    if compared.auc is None or compared.balanced_accuracy is None:
        return ""
    auc, accuracy = (f"{a:.4f}, {b:.4f}" for a, b in (compared.auc, compared.balanced_accuracy))
    return f"; AUC {auc}; balanced accuracy {accuracy}"


def _searched(
    failed: Candidate,
    source: FloatGraph,
    request: PrecisionRequest,
    judge: Judge,
    on_stage: OnStage,
) -> Candidate:
    """The network with its most harmful groups back in float16, so that it passes."""
    on_stage(f"search     {'; '.join(failed.failures)}: which groups are to blame?")
    images = [
        seen(each.views(judge.frame.geometry), judge.frame.tiling)
        for each in judge.material.chosen.of("calibration")[:_SENSITIVITY_IMAGES]
    ]
    expected = judge.logits(failed.path.with_name(GRAPH), images)
    found: dict[int, NDArray[np.float32]] = {}

    def sensitivity(group: str) -> float:
        others = [each for each in source.groups if each != group]
        path = write_eight(source, others, failed.path, judge)
        return judge.error(path, images, expected)

    def failures(kept: Collection[str]) -> list[str]:
        found[len(kept)] = judge.gate(write_eight(source, kept, failed.path, judge))
        return failures_of(judge.compare(found[len(kept)]), request.limits)

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
    logits = found[len(search.kept)]
    return Candidate("int8", failed.path, logits, judge.compare(logits), [], search)


def write_eight(source: FloatGraph, kept: Collection[str], path: Path, judge: Judge) -> Path:
    """The graph in 8 bits, but for the layers that the backend has no 8-bit kernel for."""
    impossible: set[str] = set()
    while True:
        write_graph(source.eight(kept, impossible), path)
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


def write_graph(graph: ModelProto, path: Path) -> Path:
    onnx.save(graph, path)
    return path
