"""The end of every build, whatever its graph came from: precision, hashes, plans, comparison."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trtdet.build.judge import Judge
from trtdet.build.material import PrecisionRequest
from trtdet.build.placing import (
    OnStage,
    compile_plans,
    keep_plans,
    warn_of_decision,
    with_hashes,
    write_compared,
)
from trtdet.build.precise import make_precise
from trtdet.engine.backends import BackendStatus
from trtdet.engine.bundle import Bundle


def finish_bundle(
    bundle: Bundle,
    judge: Judge | None,
    precision: PrecisionRequest,
    targets: Iterable[str],
    backend: BackendStatus,
    reference: str,
    out: Path,
    on_stage: OnStage,
) -> Bundle:
    """The record of the bundle whose float32 graph and probes are written; it goes to `out`.

    `judge` is there for fewer bits. Raises what `make_precise` and `write_compared` raise.
    """
    if judge is not None:
        bundle = make_precise(bundle, precision, judge, out, on_stage)
    bundle = with_hashes(bundle)
    keep_plans(out, bundle.path)
    warn_of_decision(out, on_stage)
    compile_plans(bundle, targets, on_stage)
    return write_compared(bundle, backend, reference, on_stage)
