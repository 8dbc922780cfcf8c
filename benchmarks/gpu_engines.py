"""The engines' logits on this GPU: against the float32 reference, and through the gate again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np

from trtdet.benchmarks.gpu_bundles import open_bundles, reference_of
from trtdet.benchmarks.gpu_compiled import ensure_compiled, need_engine, open_compiled
from trtdet.benchmarks.gpu_section import Bench, MissingError, Request, Values, WrongError
from trtdet.engine.backends import infer
from trtdet.engine.bundle import Bundle, load_probes, measure_drift
from trtdet.errors import InputError, PrecisionError


def run(bench: Bench) -> None:
    """Rows for each bundle. Raises MissingError without bundles, TensorRT, pycuda or a GPU."""
    need_engine()
    bundles = open_bundles(bench.request)
    for bundle in bundles:
        name = bundle.path.name
        if bench.row(f"{name}: plan", partial(_compile, bundle)) is None:
            continue
        bench.row(f"{name}: probes", partial(check_probes, bundle, bundles))
        bench.row(f"{name}: gate", partial(check_gate, bundle, bench.request))


def check_probes(bundle: Bundle, bundles: Sequence[Bundle], found: Values) -> None:
    """The probes' logits next to those in the bundle, and to the float32 network's."""
    probes = load_probes(bundle.path)
    session, said = open_compiled(bundle, bundle.batch)
    with closing(session):
        images = [image[None] for image in probes.images]
        logits = infer(session, images)
        again = infer(session, images[::-1])[::-1]
    found["session"] = session.name
    if said:
        found["said"] = said
    drift = measure_drift(logits, probes.logits, session.name)
    found |= {"from the bundle's": drift.max_abs, "of 1 + |logit|": drift.max_relative}
    found |= {"tolerance": bundle.tolerance, "repeats exactly": bool((logits == again).all())}
    if (reference := reference_of(bundle, bundles)) is not None:
        exact = load_probes(reference.path).logits
        found["from float32"] = float(np.abs(logits - exact).max())
        found["largest float32 logit"] = float(np.abs(exact).max())
    else:
        found["from float32"] = "not known: no float32 bundle of the same weights is among these"
    if not drift.max_relative <= bundle.tolerance:
        raise WrongError("the probes' logits lie further from the bundle's than it allows")


def check_gate(bundle: Bundle, request: Request, found: Values) -> None:
    """The gate of the bundle's build again, on this engine."""
    if bundle.precision == "fp32":
        raise MissingError("float32 has no gate: its probes are the network's own")
    try:
        from trtdet.calibration.regate import gate_images, regate
    except ImportError as error:
        raise MissingError(f"the gate does not load: {error}") from error
    try:
        images = gate_images(bundle, request.calibration)
    except InputError as error:
        raise MissingError(str(error)) from error
    if images is None:
        raise MissingError(
            "the bundle does not say what it was judged on, or on images that were not given: "
            "--calibration SET"
        )
    found["images"] = len(images)
    session, _said = open_compiled(bundle, bundle.batch)
    with closing(session):
        try:
            judged = regate(bundle, session, images)
        except PrecisionError as error:
            raise WrongError(str(error)) from error
        report = judged.precision_report
        found["here"] = report["gpu"]
        found["at the build"] = report["verdict"]
        for name, compared in report["compared"].items():
            for output, numbers in compared.items():
                found[f"{name}, {output}"] = {
                    "p99 / deviation": numbers["p99"]["value"],
                    "flips": numbers["flips"]["value"],
                    "largest": numbers["largest"],
                }


def _compile(bundle: Bundle, found: Values) -> None:
    ensure_compiled(bundle, bundle.batch, found)
