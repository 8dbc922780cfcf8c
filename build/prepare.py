"""Everything that a bundle needs to score on this machine's GPU: kernels, a plan, the gate.

It needs neither torch nor onnx, so it runs where images are scored.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from trtdet.build.builder import CURRENT, current_gpu
from trtdet.build.compile import compile_bundle
from trtdet.build.plan_settings import Batch, PlanSettings
from trtdet.build.progress_monitor import OnPhase
from trtdet.build.sweep import sweep_batches
from trtdet.calibration.regate import gate_images, regate
from trtdet.engine.backends import score_probes
from trtdet.engine.bundle import Bundle, replace_record
from trtdet.engine.kernels import write_kernels
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.resample import gpu_recipe
from trtdet.engine.tensorrt import GpuOptions
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import BackendError, DriftError, PrecisionError

OnLine = Callable[[str], None]


def prepare(
    bundle: Bundle,
    batch: Batch | None,
    on_progress: OnLine,
    *,
    settings: PlanSettings | None = None,
    flavour: Flavour | None = None,
    force: bool = False,
    calibration: Path | None = None,
    on_phase: OnPhase | None = None,
) -> Path:
    """Compile what the bundle lacks for the present GPU, and judge it; the plan's path.

    `batch` None: the fastest, measured. `calibration` is the set that fewer bits were judged on,
    where it was the user's own. Raises DriftError or PrecisionError, and takes the plan away, where
    it does not give the bundle's scores; else what `compile_bundle` raises.
    """
    settings = settings or PlanSettings()
    _compile_kernels(bundle, on_progress)
    if batch is None:
        batch = sweep_batches(bundle, settings, flavour, on_progress)
    path = compile_bundle(
        bundle, CURRENT, batch, settings=settings, flavour=flavour, force=force,
        on_progress=on_progress, on_phase=on_phase,
    )  # fmt: skip
    images = batch if isinstance(batch, int) else batch[1]
    try:
        judge_plan(bundle, images, calibration, on_progress)
    except (DriftError, PrecisionError):
        path.unlink()
        path.with_suffix(".json").unlink()
        raise
    return path


def judge_plan(bundle: Bundle, batch: int, calibration: Path | None, on_progress: OnLine) -> None:
    """Score the probes, and in fewer bits the gate's images, with the plan; it is in the record."""
    options = GpuOptions(say=on_progress)
    with closing(open_tensorrt(bundle, batch=batch, options=options)) as session:
        drift = score_probes(session, bundle)
        on_progress(
            f"compare    {drift.backend} on the probes: logits within {drift.max_abs:.2g}, "
            f"{drift.max_relative:.1g} of 1 + |logit| (limit {bundle.tolerance:g})"
        )
        if bundle.precision == "fp32":
            return
        images = gate_images(bundle, calibration)
        if images is None:
            on_progress(
                "gate       not judged on this GPU: give the images that it was built with, "
                f"`trtdet compile {bundle.path} --target current --calibration SET.json`"
            )
            return
        judged = regate(bundle, session, images)
    on_progress(f"gate       {judged.precision_report['gpu']}")
    try:
        replace_record(judged)
    except OSError as error:
        on_progress(f"gate       {bundle.path} cannot be written ({error}): it will not say so")


def _compile_kernels(bundle: Bundle, on_progress: OnLine) -> None:
    """Where images are resized; without a compiler they are resized on the host."""
    if gpu_recipe(bundle.geometry) is None:
        return
    target, _device = current_gpu()
    try:
        on_progress(f"kernels    {write_kernels(bundle.path, target).name}")
    except BackendError as error:
        on_progress(
            f"kernels    {error}. Until then images are resized on the CPU, to the same bytes"
        )
