"""What is told of a bundle in fewer bits: its precision report."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from trtdet.build.candidates import Candidate
from trtdet.build.float_graph import FloatGraph
from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest
from trtdet.calibration.quantize import count_layers

ON_A_GPU = "unverified on a GPU"


def make_report(
    graph: Path,
    source: FloatGraph,
    candidates: list[Candidate],
    chosen: Candidate,
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
