"""How many images a batch takes on this GPU: measured, from the smallest that is as fast as any."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from trtdet.build.builder import CURRENT
from trtdet.build.compile import compile_plan
from trtdet.build.plan_settings import PlanSettings
from trtdet.engine.backends import infer
from trtdet.engine.bundle import Bundle
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.plans import write_plan
from trtdet.engine.store import store_folder
from trtdet.engine.tensorrt import GpuOptions
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import BackendError

BATCHES = (1, 2, 4, 8, 16, 32, 64)
BEST_GUESS = 16

# The largest batch of the plan that is measured. Every context of a plan takes the memory of its
# largest one, so where that does not suffice for a single image, a plan for fewer may do.
LARGEST = (64, 16, 4, 1)

# A larger batch costs memory and waiting: it must be so much faster.
WORTHWHILE = 1.03

_TIMED_S = 0.5


def sweep_batches(
    bundle: Bundle,
    settings: PlanSettings,
    flavour: Flavour | None,
    on_progress: Callable[[str], None],
    device: int = 0,
) -> int:
    """Images per batch that this GPU scores fastest, from a plan for all of them that goes again.

    Detectors at native resolution take one image at a time. Raises BackendError where none runs.
    """
    if bundle.tiling is not None:
        return 1
    for largest in LARGEST:
        try:
            rates = _sweep(bundle, largest, settings, flavour, on_progress, device)
            break
        except BackendError as error:
            if largest == LARGEST[-1]:
                raise
            on_progress(f"batch      a plan for up to {largest} images does not run: {error}")
    best = choose_batch(rates)
    each = ", ".join(f"{batch}: {rate:.3g}" for batch, rate in rates.items())
    on_progress(f"batch      {best}; images per second at each: {each}")
    return best


def choose_batch(rates: Mapping[int, float]) -> int:
    """The smallest that the fastest does not beat by enough."""
    best = max(rates.values())
    return min(batch for batch, rate in rates.items() if rate * WORTHWHILE >= best)


def _sweep(
    bundle: Bundle,
    largest: int,
    settings: PlanSettings,
    flavour: Flavour | None,
    on_progress: Callable[[str], None],
    device: int,
) -> dict[int, float]:
    """The rates of one plan for up to `largest` images, which lies where nobody looks for plans."""
    views = bundle.geometry.views
    plan = compile_plan(
        bundle.graph,
        target=CURRENT,
        batch=(views, min(BEST_GUESS, largest) * views, largest * views),
        settings=settings,
        flavour=flavour,
        device=device,
        on_progress=on_progress,
    )
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=store_folder()) as folder:
        path = write_plan(Path(folder), plan)
        options = GpuOptions(graph=False, plan=path, flavour=flavour, device=device)
        try:
            for batch in BATCHES:
                if batch <= largest:
                    rates[batch] = _rate(bundle, batch, options)
        except BackendError as error:
            if not rates:
                raise
            on_progress(f"batch      larger ones do not run: {error}")
    return rates


def _rate(bundle: Bundle, batch: int, options: GpuOptions) -> float:
    """Images per second, copies included, decoding not."""
    with closing(open_tensorrt(bundle, batch=batch, options=options)) as session:
        shape = (1, *bundle.geometry.fixed_size, 3)
        image: Any = np.zeros(shape, bundle.geometry.dtype)
        images = [image] * (batch * session.slots)
        infer(session, images)
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _TIMED_S:
            infer(session, images)
            count += len(images)
        return count / elapsed
