"""Which stage holds the pipeline back, from what each takes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtdet.benchmarks.bench_network import NetworkRate
from trtdet.benchmarks.bench_pipeline import WholeRate
from trtdet.benchmarks.bench_stages import HOST_STAGES
from trtdet.engine.machine import core_count

ORDER = ("decode", "geometry", "copy", "compute", "write")  # of an image's way


def explain(
    alone: dict[str, float], network: Sequence[NetworkRate], whole: Sequence[WholeRate]
) -> dict[str, Any]:
    """The stages and the bottleneck.

    The cores (or the GPU) can do no more than one second of work each per second: a stage's `busy`
    is its seconds by itself times the images per second of the pipeline, over who does it. On a CPU
    all stages share the cores, so these add up to what the pipeline makes of them; the bottleneck
    is the busiest.
    """
    best = max(whole, key=lambda each: each.images_per_s)
    fastest = max(network, key=lambda each: each.images_per_s)
    cores = core_count()
    one = [each for each in network if each.streams == 1] or [fastest]
    by_itself = max(each.images_per_s / each.streams for each in one)
    stages: dict[str, dict[str, float | None]] = {
        name: {
            "alone_us": 1e6 * alone[name],
            "in_pipeline_us": best.stage_us[name],
            "busy": alone[name] * best.images_per_s / cores,
        }
        for name in HOST_STAGES
    }
    stages["compute"] = {
        "alone_us": 1e6 / by_itself,  # of one stream
        "in_pipeline_us": None,
        "busy": best.images_per_s / fastest.images_per_s,
    }
    busy = {name: float(each["busy"] or 0.0) for name, each in stages.items()}
    total, bottleneck = sum(busy.values()), max(busy, key=lambda name: busy[name])
    return {
        "stages": {name: stages[name] for name in ORDER},
        "ceiling_images_per_s": best.images_per_s / total,
        "share_of_ceiling": total,
        "bottleneck": {
            "stage": bottleneck,
            "busy": busy[bottleneck],
            "of_the_work": busy[bottleneck] / total,
        },
        "best": {"images_per_s": best.images_per_s, "batch": best.batch, "threads": best.threads},
    }
