"""Everything that a bundle needs to score on this machine's GPU: kernels, a plan, the gate.

It needs neither torch nor onnx, so it runs where images are scored. Two processes never do it for
the same graph and GPU at once: what one measures and judges is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from trtdet.build.builder import CURRENT, current_gpu
from trtdet.build.compile import alone, compile_bundle
from trtdet.build.judge_plan import judge_plan
from trtdet.build.plan_settings import Batch, PlanSettings
from trtdet.build.progress_monitor import OnPhase
from trtdet.build.sweep import sweep_batches
from trtdet.engine.bundle import GRAPH, Bundle
from trtdet.engine.kernels import check_kernels, write_kernels
from trtdet.engine.plans import plan_folders, remove_plan, stored_plans
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
    device: int = 0,
    force: bool = False,
    calibration: Path | None = None,
    on_phase: OnPhase | None = None,
) -> Path:
    """Compile what the bundle lacks for GPU `device`, and judge it; the plan's path.

    `batch` None: the fastest, measured. `calibration` is the set that fewer bits were judged on,
    where it was the user's own. Raises DriftError or PrecisionError, and takes the plan away, where
    it does not give the bundle's scores; else what `compile_bundle` raises. A plan of this call
    that was not judged to the end is taken away, too.
    """
    settings = settings or PlanSettings()
    target, name = current_gpu(device)
    only_one = sha256(f"{bundle.hashes[GRAPH]} {target} {name}".encode()).hexdigest()
    waiting = f"{target}: another process prepares {bundle.name} for this GPU: waiting"
    with alone(f"prepare-{only_one}.lock", lambda: on_progress(waiting)):
        _compile_kernels(bundle, target, device, force, on_progress)
        if batch is None:
            batch = sweep_batches(bundle, settings, flavour, on_progress, device)
        before = _written(bundle)
        path = compile_bundle(
            bundle, CURRENT, batch, settings=settings, flavour=flavour, device=device, force=force,
            on_progress=on_progress, on_phase=on_phase,
        )  # fmt: skip
        images = batch if isinstance(batch, int) else batch[1]
        options = GpuOptions(say=on_progress, plan=path, flavour=flavour, device=device)
        try:
            judge_plan(bundle, images, options, calibration)
        except BaseException as error:
            written_ns, verdict = before.get(path, (None, ""))
            new = written_ns != path.stat().st_mtime_ns
            refused = isinstance(error, (DriftError, PrecisionError))
            if new or (refused and not verdict):
                remove_plan(path)
            raise
    return path


def _written(bundle: Bundle) -> dict[Path, tuple[int, str]]:
    """Every plan of the bundle's graph: when it was written, and what it was found to be."""
    folders = plan_folders(bundle.plans, bundle.hashes[GRAPH])
    plans = [plan for folder in folders for plan in stored_plans(folder)]
    return {plan.path: (plan.written_ns, plan.verdict) for plan in plans}


def _compile_kernels(
    bundle: Bundle, target: str, device: int, force: bool, on_progress: OnLine
) -> None:
    """Where images are resized; without a compiler they are resized on the host."""
    if gpu_recipe(bundle.geometry) is None:
        return
    try:
        path = write_kernels(bundle.path, target, force=force)
        check_kernels(path, device)
        on_progress(f"kernels    {path.name}")
    except BackendError as error:
        on_progress(
            f"kernels    {error}. Until then images are resized on the CPU, to the same bytes"
        )
