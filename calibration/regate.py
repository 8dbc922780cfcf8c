"""The gate again, on the engine that was compiled for this machine.

A CPU can only judge a graph: what a GPU makes of it, its own kernels and sums, is judged here, on
the images that the gate saw. The bundle keeps their hashes and the network's logits (`gate.npz`),
not the images: generated ones are drawn again, others must be given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trtdet.calibration.draw import draw_set
from trtdet.calibration.gate import Limits, compare_outputs, failures_of, finite, verdict
from trtdet.calibration.generated import generated_set
from trtdet.calibration.images import SetImage, read_set
from trtdet.calibration.judged import read_judged
from trtdet.calibration.window import seen
from trtdet.engine.backends import Session, infer
from trtdet.engine.bundle import Bundle
from trtdet.errors import InputError, PrecisionError


def gate_images(bundle: Bundle, calibration: Path | None) -> list[SetImage] | None:
    """The images that the gate of a bundle saw, in their order.

    None where they were the user's and `calibration`, what the build was given, is not given again.
    Raises InputError where it holds others.
    """
    judged = read_judged(bundle)
    if judged is None:
        return None
    if calibration is not None:
        chosen = read_set(calibration) if calibration.suffix == ".json" else draw_set(calibration)
    elif bundle.precision_report["images"]["generated"]:
        chosen = generated_set()
    else:
        return None
    found = {each.sha256: each for each in chosen.images}
    if missing := [sha256 for sha256 in judged.images if sha256 not in found]:
        raise InputError(
            f"{len(missing)} of the {len(judged.images)} images that {bundle.name} was judged on "
            f"are not in {calibration or 'the generated set'}: give the set that it was built with"
        )
    return [found[sha256] for sha256 in judged.images]


def regate(bundle: Bundle, session: Session, images: Sequence[SetImage]) -> Bundle:
    """The bundle with what `session` gives on the gate's images in its report.

    Raises PrecisionError where the limits are not kept that the bundle itself keeps.
    """
    judged = read_judged(bundle)
    if judged is None:
        raise InputError(f"{bundle.name} does not say what it was judged on: build it again")
    views = [seen(each.views(bundle.geometry), bundle.tiling) for each in images]
    logits = infer(session, views)
    compared = compare_outputs(
        bundle.outputs, bundle.decision, judged.reference, logits, judged.labels
    )
    report = bundle.precision_report
    failures = failures_of(compared, Limits(**report["limits"]))
    own = verdict(len(images), failures)
    if failures and report["verdict"] == "passed":
        raise PrecisionError(
            f"{bundle.name} on {session.name} is not near enough: {'; '.join(failures)}. Build it "
            "on this machine, or in more bits"
        )
    compared_here: dict[str, Any] = {name: finite(asdict(each)) for name, each in compared.items()}
    key = f"{bundle.precision} on {session.name}"
    report = {
        **report,
        "gpu": f"{own} on {session.name}",
        "compared": {**report["compared"], key: compared_here},
    }
    return replace(bundle, precision_report=report)
