"""Whether an engine holds, on this machine, what was promised of it.

- probes: the logits of the paper's network, or in fewer bits those of the engine that was judged;
- gate: in fewer bits the images that the engine was judged on, scored again;
- same bits: a score does not depend on an image's neighbours, its place, the size of the batch, or
  the number of decoding threads, batches in flight and streams;
- decoders: OpenCV's pixels, where it decodes instead of Pillow, are Pillow's.

A TensorRT plan is compiled for one batch, so that there batches of another size are not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trtdet.benchmarks.certificate import Certificate, Check
from trtdet.benchmarks.record import describe_run
from trtdet.benchmarks.verify_bits import (
    LISTED,
    SAME_SESSION,
    check_bits,
    other_sessions,
    run_ways,
)
from trtdet.calibration.gate import Comparison, Limits, compare_outputs, failures_of, finite
from trtdet.calibration.judged import read_judged
from trtdet.calibration.regate import gate_images
from trtdet.calibration.window import seen
from trtdet.engine.backends import BackendStatus, Session, infer, probe_logits
from trtdet.engine.bundle import GATE, Bundle, measure_drift
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_plain, quiet_decoders, read_image_file
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import Ensemble, members_of
from trtdet.engine.store import starter_bundle
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import DriftError, ImageError

FLOOR = 0.95  # of Spearman's correlation with the paper's network, over the gate's images


Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is verified, and with what."""

    bundle: Bundle | Ensemble
    backend: BackendStatus
    pictures: Sequence[Path]
    calibration: Path | None = None  # the set that the bundle was judged on
    floor: float = FLOOR
    gpu: GpuOptions | None = None


def verify(request: Request, say: Say) -> Certificate:
    """Run every check. An engine that does not open has one that failed, and no other."""
    bundle = request.bundle
    checks: list[Check] = []
    name = request.backend.name
    try:
        with open_engine(request.backend, bundle, gpu=request.gpu) as engine:
            name = engine.name
            for member, lane in zip(members_of(bundle), engine.lanes, strict=True):
                say(f"{member.name}: probes")
                checks.append(check_probes(member, lane.session))
                if member.precision_report:
                    say(f"{member.name}: the gate's images")
                    checks.append(_check_gate(request, member, lane.session))
            say(f"{len(request.pictures)} images, several ways")
            results = run_ways(engine, request.pictures, SAME_SESSION)
    except DriftError as error:
        checks.append(Check("probes", False, str(error)))
    else:
        others = other_sessions(request.backend, bundle, request.pictures, request.gpu)
        checks.append(check_bits(request.pictures, results, others))
    say("decoders")
    checks.append(check_decoders(request.pictures))
    members = members_of(bundle)
    detectors = ", ".join(member.detector for member in members)
    about = {**describe_run(), "built_with": members[0].tools, "images": len(request.pictures)}
    weights = ", ".join(dict.fromkeys(_weights(member) for member in members))
    return Certificate(
        bundle.name, detectors, bundle.precision, weights, name, tuple(checks), about
    )


def check_probes(bundle: Bundle, session: Session) -> Check:
    """The probes' logits against the reference; what is beyond the tolerance did not open."""
    logits, expected = probe_logits(session, bundle)
    drift = measure_drift(logits, expected, session.name)
    compared = compare_outputs(bundle.outputs, bundle.decision, expected, logits)
    found = (
        f"{len(expected)} drawn images drift by {drift.max_abs:.2g}, {drift.max_relative:.2g} of "
        f"1 + |logit| (at most {bundle.tolerance:g}); {_in_words(compared)}"
    )
    values: dict[str, Any] = {"probes": len(expected), "tolerance": bundle.tolerance}
    values |= asdict(drift)
    values["compared"] = _plain(compared)
    return Check("probes", drift.max_relative <= bundle.tolerance, found, values)


def check_gate(
    bundle: Bundle, logits: NDArray[np.float32], floor: float, session_name: str
) -> Check:
    """Logits [G, K] of the gate's images against the paper's network, with the bundle's limits."""
    judged = read_judged(bundle)
    assert judged is not None  # its images were found by it
    compared = compare_outputs(
        bundle.outputs, bundle.decision, judged.reference, logits, judged.labels
    )
    failures = failures_of(compared, Limits(**bundle.precision_report["limits"]))
    failures += [
        f"the rank correlation of {name} is {each.rank_correlation:.4f} (floor {floor:g})"
        for name, each in compared.items()
        if not each.rank_correlation >= floor
    ]
    same = int((logits == judged.engine).all(axis=1).sum())
    found = (
        f"{len(logits)} images against float32: {_in_words(compared)}; {same} of them have the "
        "bits of the build" + "".join(f"; {failure}" for failure in failures)
    )
    values = {
        "images": len(logits), "floor": floor, "same_bits_as_built": same, "backend": session_name,
        "compared": _plain(compared), "failures": failures,
    }  # fmt: skip
    return Check("gate", not failures, found, values)


def check_decoders(pictures: Sequence[Path]) -> Check:
    """OpenCV's pixels against Pillow's, of the files that OpenCV decodes."""
    quiet_decoders()
    plain, wrong, refused = 0, [], 0
    for path in pictures:
        try:
            data = read_image_file(path)
            rgb = decode_plain(data, max_pixels=DEFAULT_MAX_PIXELS)
        except ImageError:
            refused += 1
            continue
        if rgb is not None:
            plain += 1
            if not np.array_equal(rgb, _by_pillow(data)):
                wrong.append(str(path))
    values = {"files": len(pictures), "by_opencv": plain, "refused": refused, "differing": wrong}
    if not plain:
        return Check("decoders", None, "Pillow decodes all of these files", values)
    outcome = "Pillow's bytes throughout"
    if wrong:
        outcome = f"other bytes than Pillow's: {', '.join(wrong[:LISTED])}"
    found = f"OpenCV decodes {plain} of {len(pictures)} files; {outcome}"
    return Check("decoders", not wrong, found, values)


def _by_pillow(data: bytes) -> NDArray[np.uint8]:
    """Its pixels; none where it refuses the file."""
    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # whatever it raises, it has no pixels where OpenCV has some
        return np.empty(0, np.uint8)


def _check_gate(request: Request, bundle: Bundle, session: Session) -> Check:
    if GATE in bundle.hashes and read_judged(bundle) is None:
        return Check("gate", False, f"{GATE} is missing, or another than the build's: build again")
    images = gate_images(bundle, request.calibration)
    if images is None:
        recorded = str(bundle.precision_report["verdict"])
        found = f"its images are not here: give --calibration; at the build: {recorded}"
        return Check("gate", False if "beyond its limits" in recorded else None, found)
    views = [seen(each.views(bundle.geometry), bundle.tiling) for each in images]
    return check_gate(bundle, infer(session, views), request.floor, session.name)


def _weights(bundle: Bundle) -> str:
    """Whether they are published ones, of every head and the tower."""
    if bundle.path == starter_bundle():
        return "the package's own"
    released = list(_released(bundle.checkpoint))
    if all(released):
        return "released"
    return "released in part" if any(released) else "not released"


def _released(record: Mapping[str, Any]) -> Iterator[bool]:
    if "released" in record:
        yield bool(record["released"])
    for part in record.values():
        if isinstance(part, dict):
            yield from _released(part)


def _in_words(compared: dict[str, Comparison]) -> str:
    """Flips and rank correlation, of the output where they are worst."""
    flips = max(round(each.flips.value * each.images) for each in compared.values())
    largest = max(each.largest for each in compared.values())
    rank = min(each.rank_correlation for each in compared.values())
    return f"|d logit| <= {largest:.3g}, {flips} flips, rank correlation {rank:.4f}"


def _plain(compared: dict[str, Comparison]) -> dict[str, Any]:
    return {name: finite(asdict(each)) for name, each in compared.items()}
