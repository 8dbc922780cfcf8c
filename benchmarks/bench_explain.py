"""Which stage holds the pipeline back, from what each takes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtdet.benchmarks.bench_network import NetworkRate
from trtdet.benchmarks.bench_pipeline import WholeRate
from trtdet.engine.machine import core_count

ORDER = ("decode", "geometry", "copy", "compute", "write")  # of an image's way


def explain(
    alone: dict[str, float],
    network: Sequence[NetworkRate],
    whole: Sequence[WholeRate],
    *,
    on_gpu: bool = False,
) -> dict[str, Any]:
    """The stages and the bottleneck.

    The cores, or the GPU, can do no more than one second of work each per second: a stage's `busy`
    is its seconds by itself times the images per second of the pipeline, over who does it. On a CPU
    all stages share the cores, so these add up to what the pipeline makes of them; beside a GPU,
    which also resizes (`on_gpu`: then there is no geometry in `alone`), the fuller of the two is
    the limit. The bottleneck is the busiest stage of what is the limit.
    """
    best = max(whole, key=lambda each: each.images_per_s)
    fastest = max(network, key=lambda each: each.images_per_s)
    cores = core_count()
    one = [each for each in network if each.streams == 1] or [fastest]
    by_itself = max(each.images_per_s / each.streams for each in one)
    busy = {name: seconds * best.images_per_s / cores for name, seconds in alone.items()}
    busy["compute"] = best.images_per_s / fastest.images_per_s
    if on_gpu:
        host = [name for name in busy if name != "compute"]
        parts = (["compute"], host)
        limit = max(parts, key=lambda names: sum(busy[name] for name in names))
    else:
        limit = list(busy)
    total, bottleneck = sum(busy[name] for name in limit), max(limit, key=busy.__getitem__)
    stages = {
        name: {
            "alone_us": 1e6 / by_itself if name == "compute" else 1e6 * alone[name],
            "in_pipeline_us": best.stage_us.get(name),  # on all threads together
            "busy": busy[name],
        }
        for name in ORDER
        if name in busy
    }
    return {
        "stages": stages,
        "ceiling_images_per_s": best.images_per_s / total,
        "share_of_ceiling": total,
        "bottleneck": {
            "stage": bottleneck,
            "busy": busy[bottleneck],
            "of_the_work": busy[bottleneck] / total,
        },
        "best": {"images_per_s": best.images_per_s, "batch": best.batch, "threads": best.threads},
    }
