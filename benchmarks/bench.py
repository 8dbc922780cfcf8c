"""How fast an engine is on this machine, what holds it back, and how near the machine's peak it is.

In this order, within a budget of time: the machine's peak; the stages one by one; the network alone
over batches and streams; the whole pipeline over decoding threads and batches. Settings for which
no time was left are named. Everything is in one record, for `bench_text` and `bench_page`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtdet.benchmarks.bench_explain import explain
from trtdet.benchmarks.bench_network import NetworkRate, Setting, time_network
from trtdet.benchmarks.bench_pipeline import WholeRate, time_whole
from trtdet.benchmarks.bench_stages import Material, read_material, time_stages
from trtdet.benchmarks.cpu_peak import measure_peak
from trtdet.benchmarks.gauges import gauges
from trtdet.benchmarks.gpu_peak import peak_of
from trtdet.benchmarks.gpu_section import MissingError
from trtdet.benchmarks.record import describe_run
from trtdet.benchmarks.work import work_of
from trtdet.engine.backends import TENSORRT, BackendStatus
from trtdet.engine.bundle import Bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.machine import core_count
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import BackendError, InputError

BATCHES = (1, 2, 4, 8, 16, 32)

# Parts of the time: the rest is the pipeline's.
_PEAK, _STAGES, _NETWORK = 0.08, 0.12, 0.45
_MOST_PEAK_S, _MOST_STAGES_S = 4.0, 12.0
_LEAST_S = 0.4  # of a setting

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is measured, on what, and for how long."""

    bundle: Bundle
    backend: BackendStatus
    pictures: Sequence[Path]
    drawn: bool  # the pictures are the program's own
    seconds: float
    batches: tuple[int, ...] = ()  # () for the usual ones
    streams: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    gpu: GpuOptions | None = None


def run_bench(request: Request, say: Say) -> dict[str, Any]:
    """Measure everything. Raises InputError where no image can be scored, or a batch cannot be."""
    bundle, started = request.bundle, time.monotonic()
    if bundle.tiling is not None and max(request.batches, default=1) > 1:
        raise InputError(
            f"--batches: {bundle.name} takes one image at a time at its native resolution: leave "
            "--batches out"
        )
    ends = started + request.seconds - _peak_seconds(request)
    left_out: list[str] = []
    with gauges() as readings:
        material = read_material(request.pictures, bundle)
        say("the machine's peak")
        peak = _peak(request)
        say("stages, one by one")
        seconds = min(_MOST_STAGES_S, _STAGES * request.seconds)
        alone = time_stages(request.backend, bundle, material, seconds, request.gpu)
        network = _network(request, material, started + _until_network(request), left_out, say)
        whole = _whole(request, material, network, ends, left_out, say)
        # Before and after: a machine that was slower at one of them would flatter the network.
        peak = max(peak, _peak(request), key=lambda each: each.get("multiply_adds_per_s", 0.0))
    record: dict[str, Any] = {
        "engine": bundle.name,
        "detector": bundle.detector,
        "precision": bundle.precision,
        "backend": f"{request.backend.name} {request.backend.version}",
        **describe_run(),
        "asked_seconds": request.seconds,
        "took_seconds": round(time.monotonic() - started, 1),
        "images": {
            "files": len(material.paths),
            "drawn": request.drawn,
            "megapixels": material.megapixels,
            "kilobytes": material.kilobytes,
        },
        "network": [asdict(each) for each in network],
        "whole": [asdict(each) for each in whole],
        "left_out": left_out,
        **explain(alone, network, whole, on_gpu=request.backend.name == TENSORRT),
        "gauges": readings,
    }
    record["work"] = _work(bundle, material, peak, network)
    return record


def _until_network(request: Request) -> float:
    """Seconds from the start until which settings of the network are begun."""
    return (_PEAK + _STAGES + _NETWORK) * request.seconds


def _network(
    request: Request, material: Material, ends: float, left_out: list[str], say: Say
) -> list[NetworkRate]:
    settings = _settings(request)
    found: list[NetworkRate] = []
    for place, setting in enumerate(settings):
        remaining = ends - time.monotonic()
        if remaining <= 0.0 and found:
            left_out.append(f"network, {setting}: no time was left")
            continue
        say(f"network, {setting}")
        seconds = max(_LEAST_S, remaining / (len(settings) - place))
        try:
            found.append(
                time_network(
                    request.backend, request.bundle, setting, material.views, seconds, request.gpu
                )
            )
        except BackendError as error:
            if place == 0:
                raise
            left_out.append(f"network, {setting}: {error}")
    return found


def _settings(request: Request) -> list[Setting]:
    """The telling ones first: the time may not suffice for all."""
    bundle, cores = request.bundle, core_count()
    usual: tuple[int, ...] = BATCHES
    if bundle.tiling is not None:
        usual = (1,)
    elif request.backend.name == TENSORRT:
        usual = (bundle.batch,)  # another one would have to be compiled first
    batches = request.batches or tuple(sorted({*usual, bundle.batch}))
    streams = request.streams or (cores, 1)
    if request.backend.name != TENSORRT:
        streams = (*streams, cores)  # the pipeline's, to compare with
    settings = [Setting(batch, each) for batch in batches for each in dict.fromkeys(streams)]
    return sorted(settings, key=lambda each: each.batch != bundle.batch)


def _whole(
    request: Request,
    material: Material,
    network: Sequence[NetworkRate],
    ends: float,
    left_out: list[str],
    say: Say,
) -> list[WholeRate]:
    """Decoding threads at the bundle's batch, then the batch that was fastest alone."""
    cores = core_count()
    threads = request.threads or tuple(sorted({cores, 1, 2 * cores}, key=lambda n: (n != cores, n)))
    fastest = max(network, key=lambda each: each.images_per_s).batch
    own = request.bundle.batch
    if request.batches and own not in request.batches:
        own = request.batches[0]
    plan = [(own, each) for each in threads]
    if fastest != own:
        plan.append((fastest, threads[0]))
    found: list[WholeRate] = []
    with ExitStack() as stack:
        opened = None
        for place, (batch, each) in enumerate(plan):
            name = f"pipeline, batch {batch}, {each} decoding threads"
            remaining = ends - time.monotonic()
            if remaining <= 0.0 and found:
                left_out.append(f"{name}: no time was left")
                continue
            say(name)
            if opened is None or opened.batch != batch:
                stack.close()
                wanted = None if request.bundle.tiling else batch
                opened = stack.enter_context(
                    open_engine(request.backend, request.bundle, batch=wanted, gpu=request.gpu)
                )
            seconds = max(_LEAST_S, (ends - time.monotonic()) / (len(plan) - place))
            found.append(time_whole(opened, material.paths, each, seconds))
    return found


def _peak_seconds(request: Request) -> float:
    """Of each of the two times that it is measured."""
    if request.backend.name == TENSORRT:
        return 0.0
    return min(_MOST_PEAK_S, _PEAK * request.seconds) / 2


def _peak(request: Request) -> dict[str, Any]:
    """What the machine multiplies at most, in the bundle's precision."""
    precision = "int8" if request.bundle.precision == "int8" else "fp32"
    if request.backend.name != TENSORRT:
        peak = measure_peak(precision, _peak_seconds(request))
        return {
            "multiply_adds_per_s": peak.best,
            "precision": precision,
            "how": "measured: the larger of a product and a convolution, through the same backend, "
            "before and after",
            **asdict(peak),
        }
    try:
        from trtdet.benchmarks.gpu_state import query_gpu

        name = query_gpu(("name",))["name"]
        operations = 1e12 * peak_of(name).of(request.bundle.precision)
    except (MissingError, KeyError) as error:
        return {"how": f"not known: {error}"}
    return {
        "multiply_adds_per_s": operations / 2,
        "precision": request.bundle.precision,
        "how": f"dense, by the data sheet of {name}",
    }


def _work(
    bundle: Bundle, material: Material, peak: dict[str, Any], network: Sequence[NetworkRate]
) -> dict[str, Any]:
    """Multiply-adds for an image, and how near to the peak the network comes."""
    try:
        work = work_of(bundle, material.megapixels)
    except MissingError as error:
        return {"multiply_adds": f"not known: {error}", "peak": peak}
    rate = max(each.images_per_s for each in network)
    found: dict[str, Any] = {
        "multiply_adds": work,
        "multiply_adds_per_s": work * rate,
        "peak": peak,
    }
    if "multiply_adds_per_s" in peak:
        found["share_of_peak"] = work * rate / peak["multiply_adds_per_s"]
    return found
