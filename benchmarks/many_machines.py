"""What a Ray cluster costs and gives, beside one process on the same images, and the same bytes.

    python -m trtdet.benchmarks.many_machines input.csv BUNDLE [--nodes 2] [--cpus 2] [--out r.json]

Starts a cluster of `--nodes` nodes on this machine, each with `--cpus` logical CPUs, and scores the
table in turn, round after round: `trtdet score`, and `trtdet score --ray`. The nodes share the
machine's cores, so this is what Ray costs, not what more machines give. Rates are those of
the commands' own summaries (in one process without start-up and compilation; on the cluster with
the start of its actors), seconds those of the whole commands; medians. The two CSVs must be equal,
byte for byte, in every round.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from trtdet.benchmarks.record import describe_run
from trtdet.engine.ray_cluster import import_ray
from trtdet.engine.sink import reasons_path

OBJECT_STORE_BYTES = 400 << 20


@dataclass(frozen=True)
class Timed:
    """One command: the images per second that it says, and its wall seconds."""

    images_per_s: float
    seconds: float


def main() -> None:
    """Measure, compare, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("input", type=Path)
    parser.add_argument("engine")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ray = import_ray()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": options.cpus, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(options.nodes - 1):
            cluster.add_node(**node)
        rounds = [
            measure_round(options.input, options.engine, cluster.address)
            for _ in range(options.rounds)
        ]
    finally:
        cluster.shutdown()
    alone, together = (
        Timed(median(each.images_per_s for each in way), median(each.seconds for each in way))
        for way in zip(*rounds, strict=True)
    )
    print(f"one process      {alone.images_per_s:6.0f} images/s, {alone.seconds:.1f} s in all")
    print(
        f"{options.nodes} nodes with Ray {together.images_per_s:6.0f} images/s, "
        f"{together.seconds:.1f} s in all; the same bytes in {options.rounds} rounds"
    )
    if options.out:
        results = {
            "engine": Path(options.engine).name,
            "nodes": options.nodes,
            "cpus_per_node": options.cpus,
            "rounds": options.rounds,
            "one_process": asdict(alone),
            "ray": asdict(together),
        }
        record = {**describe_run(), "ray": ray.__version__, "results": results}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure_round(table: Path, engine: str, address: str) -> tuple[Timed, Timed]:
    """The same table by one process and by the cluster. Exits where their bytes differ."""
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.csv", Path(folder) / "two.csv"
        command = ("score", "--engine", engine, str(table))
        timed = time_command(*command, str(one)), time_command(*command, str(two), "--ray", address)
        for first, second in ((one, two), (reasons_path(one), reasons_path(two))):
            if first.exists() != second.exists():
                raise SystemExit(f"one of {first.name} and {second.name} alone was written")
            if first.exists() and first.read_bytes() != second.read_bytes():
                raise SystemExit(f"{first.name} and {second.name} differ: that is a bug")
    return timed


def time_command(*arguments: str) -> Timed:
    """Run `trtdet`; its rate and its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "trtdet", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    rate = re.search(r"([\d.]+) images/s", done.stderr)
    if rate is None or done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return Timed(float(rate[1]), seconds)


if __name__ == "__main__":
    main()
