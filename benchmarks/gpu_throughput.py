"""Images per second: the network alone, and from JPEG files to a table through the real pipeline.

For every bundle and batch:

- `network`: the plan with its input on the device, in one stream and in as many as a session has;
- `stages`: what decoding, loading, copies, kernels and network take one by one;
- `end to end`: the pipeline on files, its ratio to the network alone, and how busy each stage was
  meanwhile: its seconds per image times the images per second. The busiest is the bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from trtdet.benchmarks.gpu_bundles import open_bundles
from trtdet.benchmarks.gpu_clock import seconds_of
from trtdet.benchmarks.gpu_compiled import (
    drop_plan,
    ensure_compiled,
    loaded_plan,
    need_engine,
    open_compiled,
)
from trtdet.benchmarks.gpu_peak import peak_of
from trtdet.benchmarks.gpu_pictures import scored_pictures
from trtdet.benchmarks.gpu_record import Record
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values
from trtdet.benchmarks.gpu_stages import open_network, time_stages
from trtdet.benchmarks.gpu_state import gauges
from trtdet.benchmarks.work import work_of
from trtdet.engine import pipeline
from trtdet.engine.bundle import Bundle
from trtdet.engine.engine import Engine, Lane
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.machine import core_count
from trtdet.engine.sink import open_sink
from trtdet.engine.table import Row
from trtdet.engine.tensorrt import GpuOptions

# The telling ones first: the time may not suffice for all.
BATCHES = (32, 1, 8, 128, 2, 4, 16, 64)

_STREAMS = GpuOptions().slots
_LONGER = 3.0  # rounds, so that clocks are those of steady work
_TIMED_FILES = 512  # that decoding is timed on
_END_TO_END_S = 4.0
_LEAST_BATCHES = 4 * _STREAMS  # fewer would measure how the pipeline fills


def run(bench: Bench) -> None:
    """Rows for each batch and bundle. Raises MissingError without bundles or a working engine."""
    need_engine()
    bundles = open_bundles(bench.request)
    paths = scored_pictures(bench.request)
    for batch in BATCHES:
        for bundle in bundles:
            if bundle.tiling is None or batch == 1:
                measure_batch(bench, bundle, batch, paths)
                if batch != bundle.batch:  # the one that `engines` has compiled, too
                    drop_plan(bundle, batch)


def measure_batch(bench: Bench, bundle: Bundle, batch: int, paths: Sequence[Path]) -> None:
    """The rows of one bundle at one batch."""
    name = f"{bundle.path.name}, batch {batch}"
    if bench.row(f"{name}: plan", partial(ensure_compiled, bundle, batch)) is None:
        return
    peers = peer_rates(bench.record, bundle, batch)
    network = bench.row(f"{name}: network", partial(time_network, bundle, batch, peers))
    measure = partial(measure_stages, bundle, batch, paths[:_TIMED_FILES])
    stages = bench.row(f"{name}: stages", measure)
    out = bench.request.work / "scores.csv"
    whole = partial(time_end_to_end, bundle, batch, paths, network or {}, stages or {}, out)
    bench.row(f"{name}: end to end", whole)


def peer_rates(record: Record, bundle: Bundle, batch: int) -> dict[str, float]:
    """Images per second of the same network and input in PyTorch, where the section `torch` ran."""
    section = record.sections.get("torch")
    if section is None or bundle.tiling is not None:
        return {}
    found = {}
    for mode in ("eager", "torch.compile"):
        row = section.find(f"{bundle.detector} {mode}, batch {batch}")
        if row is not None and row.values.get("input") == [batch, *bundle.geometry.fixed_size, 3]:
            found[mode] = row.values["images/s"] / bundle.geometry.views
    return found


def time_network(bundle: Bundle, batch: int, peers: Mapping[str, float], found: Values) -> None:
    """The plan alone: no decoding, no copies."""
    with loaded_plan(bundle, batch) as plan:
        gpu_name = plan.gpu.name
        one = _seconds(plan, bundle, batch, 1, found)
        several = _seconds(plan, bundle, batch, _STREAMS, found)
    found |= {
        "ms per batch": 1e3 * one,
        "images/s in one stream": batch / one,
        f"images/s in {_STREAMS} streams": batch / several,
        "images/s": batch / min(one, several),
    }
    for mode, rate in peers.items():
        found[f"times PyTorch fp16 {mode}"] = found["images/s in one stream"] / rate
    try:
        found["multiply-adds"] = work_of(bundle)
        found["TFLOP/s"] = 2e-12 * found["multiply-adds"] * found["images/s"]
        found["of dense peak"] = found["TFLOP/s"] / peak_of(gpu_name).of(bundle.precision)
    except MissingError as error:
        found["of dense peak"] = f"not known: {error}"


def measure_stages(bundle: Bundle, batch: int, paths: Sequence[Path], found: Values) -> None:
    """Microseconds per image of each stage by itself, and each one's share of their sum."""
    with loaded_plan(bundle, batch) as plan:
        stages = time_stages(plan, bundle, batch, paths)
    total = sum(stages.values())
    found["us per image"] = {name: 1e6 * seconds for name, seconds in stages.items()}
    found["share"] = {name: seconds / total for name, seconds in stages.items()}


def time_end_to_end(
    bundle: Bundle,
    batch: int,
    paths: Sequence[Path],
    network: Values,
    stages: Values,
    out: Path,
    found: Values,
) -> None:
    """The pipeline as `trtdet score` runs it, its start and its probes left out."""
    session, said = open_compiled(bundle, batch)
    with closing(session):
        engine = Engine((Lane(session, bundle.decision, bundle),), bundle.outputs)
        first = _score(engine, paths, _LEAST_BATCHES * batch, out)
        count = max(_LEAST_BATCHES * batch, int(_END_TO_END_S * first.images_per_s))
        with gauges() as state:
            summary = _score(engine, paths, count, out)
    rate = summary.images_per_s
    found |= {"session": session.name, "files": summary.rows, "failed": summary.failures}
    found |= {"decode threads": core_count(), "images/s": rate, "under load": state}
    if said:
        found["said"] = said
    if "images/s" in network:
        found["of the network alone"] = rate / network["images/s"]
    if "us per image" in stages:
        busy = {name: 1e-6 * each * rate for name, each in stages["us per image"].items()}
        found["busy"] = busy
        found["bottleneck"] = max(busy, key=lambda name: busy[name])


def _seconds(plan: LoadedPlan, bundle: Bundle, batch: int, streams: int, found: Values) -> float:
    """Of one batch, with so many streams taking turns."""
    with ExitStack() as stack:
        networks = [stack.enter_context(open_network(plan, bundle, batch)) for _ in range(streams)]
        turns = cycle(networks)

        def wait() -> None:
            for each in networks:
                each.stream.synchronize()

        with gauges() as state:
            seconds = seconds_of(lambda: next(turns).launch(), wait, _LONGER)
        found["captured"] = all(each.captured for each in networks)
        found["under load"] = state
    return seconds


def _score(engine: Engine, paths: Sequence[Path], count: int, out: Path) -> pipeline.Summary:
    rows = (Row(index, str(path)) for index, path in enumerate(islice(cycle(paths), count)))
    out.unlink(missing_ok=True)
    with open_sink(str(out), None, engine.columns) as sink:
        return pipeline.score(
            rows, lambda row: Path(row.filename), engine, sink, decode_threads=core_count()
        )
