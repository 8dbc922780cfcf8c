"""What is told of a bundle in fewer bits: its precision report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from trtdet.build.candidates import Candidate
from trtdet.build.float_graph import FloatGraph
from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest
from trtdet.calibration.gate import finite, verdict
from trtdet.calibration.quantize import count_layers
from trtdet.calibration.stand_in import how_well

ON_A_GPU = "unverified on a GPU"


def make_report(
    detector: str,
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
    search = chosen.search
    return {
        "verdict": verdict(len(judge.material.gate), chosen.failures),
        "backend": f"{judge.backend.name} {judge.backend.version}",
        "gpu": "" if chosen.precision == "fp32" else ON_A_GPU,
        "images": {
            "sha256": images.sha256,
            "generated": images.generated,
            "calibration": len(images.of("calibration")),
            "gate": len(images.of("gate")),
            "stand_in": how_well(detector, chosen.precision) if images.generated else "",
        },
        "method": request.method,
        "limits": asdict(request.limits),
        "layers_in_8_bits": count_layers(onnx.load(graph)),
        "kept_in_float16": list(search.kept) if search else [],
        "sensitivity": dict(search.ranking) if search else {},
        "float32_for_range": source.too_large,
        "compared": {
            each.precision: {name: finite(asdict(one)) for name, one in each.compared.items()}
            for each in candidates
        },
        "images_per_s": {name: round(rate, 3) for name, rate in rates.items()},
    }
