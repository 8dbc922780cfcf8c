"""How close the whole command comes to decoding and inference alone, and whether memory stays flat.

    python -m trtdet.benchmarks.pipeline input.csv BUNDLE [BUNDLE ...] [--out results.json]

Decoding and inference share the cores, so the best that the whole can do is
`1 / (1 / decode + 1 / inference)` images per second. All three are measured in turn, round after
round, in one run: decoding alone (read, decode, geometry; as many threads as cores), inference
alone (the same compiled model and batch, inputs in place), and the command as a user runs
it, start-up and compilation included. Medians are reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from trtdet.benchmarks.bench_network import Setting, time_network
from trtdet.benchmarks.bench_stages import read_material
from trtdet.benchmarks.record import describe_run
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.engine.geometry import apply_geometry
from trtdet.engine.machine import core_count
from trtdet.engine.store import find_bundle
from trtdet.engine.table import open_table

# Linux counts the memory of whoever starts a process as the process's own, until it has loaded its
# program; so a small launcher starts it, not this script with its models.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


INFERENCE_S = 10.0  # of inference alone
DISTINCT = 64  # images that it is timed on


@dataclass(frozen=True)
class Rates:
    """Images per second, and how much of what the cores can do the whole command reaches."""

    decode: float
    inference: float
    whole: float

    @property
    def ceiling(self) -> float:
        """What decoding and inference allow together."""
        return 1.0 / (1.0 / self.decode + 1.0 / self.inference)


def main() -> None:
    """Measure, print a Markdown table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("input", type=Path)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.bundles:
        rates = measure_rates(options.input, name, options.rounds)
        memory = {count: peak_memory_mib(options.input, name, count) for count in (5_000, 50_000)}
        rows.append({"engine": Path(name).name, **asdict(rates), "ceiling": rates.ceiling,
                     "share": rates.whole / rates.ceiling, "peak_mib": memory})  # fmt: skip
    columns = ("engine", "decode", "inference", "ceiling", "whole command", "share")
    print("|", " | ".join((*columns, "5,000 rows", "50,000 rows")), "|")
    print("|" + "--|" * (len(columns) + 2))
    for row in rows:
        print(
            f"| {row['engine']} | {row['decode']:.0f}/s | {row['inference']:.0f}/s "
            f"| {row['ceiling']:.0f}/s | {row['whole']:.0f}/s | {row['share']:.2f} "
            f"| {row['peak_mib'][5_000]:.0f} MiB | {row['peak_mib'][50_000]:.0f} MiB |"
        )
    if options.out:
        record = {**describe_run(), "rounds": options.rounds, "results": rows}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure_rates(table: Path, engine: str, rounds: int) -> Rates:
    """Decode, inference and whole in turn, `rounds` times; medians."""
    bundle = open_bundle(find_bundle(engine))
    with open_table(str(table), sys.stdin.buffer) as opened:
        paths = [opened.folder / row.filename for row in opened.rows()]
    backend, _rejected = choose_backend("auto")
    views = read_material(paths[:DISTINCT], bundle).views
    setting = Setting(bundle.batch, core_count())
    decode, inference, whole = [], [], []
    for _ in range(rounds):
        decode.append(len(paths) / time_decode(paths, bundle))
        network = time_network(backend, bundle, setting, views, INFERENCE_S)
        inference.append(network.images_per_s)
        seconds, _memory = time_command(table, engine)
        whole.append(len(paths) / seconds)
    return Rates(median(decode), median(inference), median(whole))


def time_decode(paths: list[Path], bundle: Bundle) -> float:
    """Seconds to read, decode and shape every image, on all cores."""
    quiet_decoders()

    def load(path: Path) -> None:
        rgb = decode_rgb(read_image_file(path), max_pixels=DEFAULT_MAX_PIXELS)
        np.array(apply_geometry(bundle.geometry, rgb))  # and into its place

    start = time.perf_counter()
    with ThreadPoolExecutor(core_count()) as pool:
        deque(pool.map(load, paths), maxlen=0)
    return time.perf_counter() - start


def time_command(table: Path, engine: str) -> tuple[float, float]:
    """Wall seconds and peak MiB of `trtdet score`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trtdet", "score", "--engine", engine, str(table)]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-S", "-c", _LAUNCHER, *command, str(Path(folder) / "scores.csv")],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: run it by hand to see why")
    return seconds, int(done.stdout) / 1024  # Linux counts in KiB


def peak_memory_mib(table: Path, engine: str, rows: int) -> float:
    """Peak memory of scoring `rows` rows, the table's images over and over."""
    with open_table(str(table), sys.stdin.buffer) as opened:
        names = [str((opened.folder / row.filename).absolute()) for row in opened.rows()]
    with tempfile.TemporaryDirectory() as folder:
        longer = Path(folder) / "rows.csv"
        lines = (names[index % len(names)] for index in range(rows))
        longer.write_text("filename\n" + "".join(f'"{name}"\n' for name in lines), "utf-8")
        return time_command(longer, engine)[1]


if __name__ == "__main__":
    main()
