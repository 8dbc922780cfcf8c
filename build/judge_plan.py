"""Does a plan give the bundle's scores on this GPU? Said, and noted in the plan's record.

In float32 the probes decide: their logits are the network's own. In fewer bits two engines that are
equally good differ by more on single images than any small tolerance allows, so there the gate
decides, on the images that it saw, and the probes' logits that this very plan gives are what it is
held to from then on.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

from trtdet.calibration.regate import gate_images, regate
from trtdet.engine.backends import Session, infer, refuse_drift, score_probes
from trtdet.engine.bundle import (
    GRAPH,
    Bundle,
    Drift,
    load_probes,
    measure_drift,
    replace_record,
)
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.plans import record_judged, writable_folder
from trtdet.engine.store import RECORD
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import DriftError, InputError

# Where no gate can be had: so many tolerances, and in any case less than this. It finds a plan that
# is wrong, not one that is a little worse.
UNGATED_TOLERANCES = 5.0
_UNGATED_MOST = 0.99

NOT_JUDGED = "not judged on this GPU"


def judge_plan(bundle: Bundle, batch: int, options: GpuOptions, calibration: Path | None) -> None:
    """Judge the plan `options.plan` for batches of `batch` images.

    `calibration` is the set that fewer bits were judged on, where it was the user's own. Raises
    DriftError or PrecisionError for a plan that does not give the bundle's scores.
    """
    with closing(open_tensorrt(bundle, batch=batch, options=options)) as session:
        if bundle.precision == "fp32":
            drift = score_probes(session, bundle)
            options.say(f"{_compared(drift)} (limit {bundle.tolerance:g})")
        else:
            _judge_fewer_bits(bundle, session, options, calibration)


def _judge_fewer_bits(
    bundle: Bundle, session: Session, options: GpuOptions, calibration: Path | None
) -> None:
    images = gate_images(bundle, calibration)
    judged = None if images is None else regate(bundle, session, images)
    probes = load_probes(bundle.path)
    logits = infer(session, [image[None] for image in probes.images])
    drift = measure_drift(logits, probes.logits, session.name)
    if judged is None:
        limit = min(UNGATED_TOLERANCES * bundle.tolerance, _UNGATED_MOST)
        options.say(f"{_compared(drift)} (limit {limit:g})")
        refuse_drift(drift, limit, bundle.name)
        options.say(
            "gate       not judged on this GPU: give the images that it was built with, "
            f"`trtdet compile {bundle.path} --target current --calibration SET.json`"
        )
        verdict = NOT_JUDGED
    else:
        options.say(f"{_compared(drift)} (the gate decides)")
        if not math.isfinite(drift.max_abs):
            raise DriftError(f"{bundle.name} on {session.name} gives no number for a probe")
        verdict = str(judged.precision_report["gpu"])
        options.say(f"gate       {verdict}")
    try:
        if options.plan is not None:
            record_judged(options.plan, logits, verdict)
        if judged is not None:
            _keep_report(judged)
    except (InputError, OSError) as error:
        options.say(f"gate       {error}: the verdict is not kept")


def _compared(drift: Drift) -> str:
    return (
        f"compare    {drift.backend} on the probes: logits within {drift.max_abs:.2g}, "
        f"{drift.max_relative:.1g} of 1 + |logit|"
    )


def _keep_report(bundle: Bundle) -> None:
    """Into the bundle's record. Raises OSError where that is not ours to write."""
    own = writable_folder(bundle.plans, bundle.hashes[GRAPH]) == bundle.plans
    if not own or (bundle.path / RECORD).is_symlink():
        raise OSError(f"{bundle.path} stays as it is")
    replace_record(bundle)
