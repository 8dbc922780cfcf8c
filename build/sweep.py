"""How many images a batch takes on this GPU: measured, from the smallest that is as fast as any."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from trtdet.build.builder import CURRENT
from trtdet.build.compile import compile_bundle
from trtdet.build.plan_settings import PlanSettings
from trtdet.engine.backends import infer
from trtdet.engine.bundle import Bundle
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.tensorrt import GpuOptions
from trtdet.engine.tensorrt_library import Flavour
from trtdet.errors import BackendError

BATCHES = (1, 2, 4, 8, 16, 32, 64)
BEST_GUESS = 16

# A larger batch costs memory and waiting: it must be so much faster.
WORTHWHILE = 1.03

_TIMED_S = 0.5


def sweep_batches(
    bundle: Bundle,
    settings: PlanSettings,
    flavour: Flavour | None,
    on_progress: Callable[[str], None],
) -> int:
    """Images per batch that this GPU scores fastest, from a plan for all of them that goes again.

    Detectors at native resolution take one image at a time.
    """
    if bundle.tiling is not None:
        return 1
    trial = compile_bundle(
        bundle, CURRENT, (BATCHES[0], BEST_GUESS, BATCHES[-1]), settings=settings, flavour=flavour,
        on_progress=on_progress,
    )  # fmt: skip
    rates: dict[int, float] = {}
    try:
        for batch in BATCHES:
            rates[batch] = _rate(bundle, batch)
    except BackendError as error:
        if not rates:
            raise
        on_progress(f"batch      larger ones do not run: {error}")
    finally:
        trial.unlink()
        trial.with_suffix(".json").unlink()
    best = choose_batch(rates)
    each = ", ".join(f"{batch}: {rate:.3g}" for batch, rate in rates.items())
    on_progress(f"batch      {best}; images per second at each: {each}")
    return best


def choose_batch(rates: Mapping[int, float]) -> int:
    """The smallest that the fastest does not beat by enough."""
    best = max(rates.values())
    return min(batch for batch, rate in rates.items() if rate * WORTHWHILE >= best)


def _rate(bundle: Bundle, batch: int) -> float:
    """Images per second, copies included, decoding not."""
    options = GpuOptions(graph=False)
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
