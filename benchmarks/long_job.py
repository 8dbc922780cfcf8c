"""What a row costs besides its image, and what memory a million of them take.

    python -m trtdet.benchmarks.long_job FOLDER [--rows 10000 1000000] [--out results.json]

`trtdet score`, as a process of its own, scores tables of the given lengths whose names repeat over
the files in FOLDER, with a network of one multiplication that sees the central 8 pixels: what is
left is reading, decoding and the row itself. Peak memory is the process's own. The overhead per row
is what a row of the longer job takes of the processor, less reading and decoding, each measured
alone on the same files, and less the network: an upper bound, since cores that share work on it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from trtdet.benchmarks.record import describe_run
from trtdet.engine.backends import choose_backend, infer, open_session
from trtdet.engine.bundle import open_bundle
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb, quiet_decoders, read_image_file
from trtdet.engine.geometry import apply_geometry

SIDE, BATCH = 8, 16

_SPEC = f"""
name = "central-mean"
licence = "Apache-2.0"
[input]
layout = "NHWC"
[[geometry]]
kind = "center_crop"
height = {SIDE}
width = {SIDE}
[normalization]
scale = 255
[output]
meaning = "logit"
"""


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.iterdir() if path.suffix in (".jpg", ".png"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bundle = build_small(work)
        jobs = [run_job(bundle, files, count, work) for count in sorted(options.rows)]
        alone = time_alone(bundle, files)
    short, long = jobs
    rows = long["rows"] - short["rows"]
    cpu_us = 1e6 * (long["cpu_s"] - short["cpu_s"]) / rows
    result: dict[str, Any] = {
        **describe_run(),
        "files": len(files),
        "jobs": jobs,
        "peak_memory_ratio": long["peak_mb"] / short["peak_mb"],
        "cpu_us_per_row": {"all": cpu_us, **alone, "overhead": cpu_us - sum(alone.values())},
        "wall_us_per_row": 1e6 * (long["seconds"] - short["seconds"]) / rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def build_small(work: Path) -> Path:
    """A bundle that does next to nothing, made as a user makes one of a graph of their own."""
    weights = numpy_helper.from_array(np.ones((SIDE * SIDE * 3, 1), np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["score"]),
        ],
        "central_mean",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), work / "small.onnx")
    (work / "small.toml").write_text(_SPEC)
    arguments = ["build", "--onnx", "small.onnx", "--spec", "small.toml", "--no-default"]
    trtdet(*arguments, "--out", "small", "--batch", str(BATCH), folder=work)
    return work / "small"


def run_job(bundle: Path, files: list[Path], count: int, work: Path) -> dict[str, Any]:
    """Score a table of `count` rows in a process of its own."""
    table = work / f"{count}.csv"
    with table.open("w", encoding="utf-8") as file:
        file.write("filename\n")
        for path in itertools.islice(itertools.cycle(files), count):
            file.write(f'"{path.absolute()}"\n')
    start = time.perf_counter()
    said, usage = trtdet(
        "score", "--json", "--engine", str(bundle), "--backend", "openvino",
        str(table), str(work / "out.csv"), folder=work,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    with (work / "out.csv").open() as file:
        lines = sum(1 for _ in file) - 1
    if lines != count:
        raise SystemExit(f"{count} rows went in, and {lines} came out")
    summary = json.loads(said)
    return {
        "rows": count,
        "failed": summary["failed"],
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def time_alone(bundle: Path, files: list[Path]) -> dict[str, float]:
    """Processor time per image of what is not the row's, in microseconds."""
    quiet_decoders()
    some = files[:2000]
    data = [read_image_file(path) for path in some]
    opened = open_bundle(bundle)
    backend, _ = choose_backend("openvino")
    session, _drift = open_session(backend, opened)
    with closing(session):
        pixels = [
            apply_geometry(opened.geometry, decode_rgb(each, max_pixels=DEFAULT_MAX_PIXELS))
            for each in data
        ]
        return {
            "read": _cpu_us(lambda: [read_image_file(path) for path in some], len(some)),
            "decode": _cpu_us(
                lambda: [decode_rgb(each, max_pixels=DEFAULT_MAX_PIXELS) for each in data],
                len(some),
            ),
            "network": _cpu_us(lambda: infer(session, pixels), len(some)),
        }


def trtdet(*arguments: str, folder: Path) -> tuple[str, resource.struct_rusage]:
    """Run the command; what it printed, and what it took."""
    command = [sys.executable, "-m", "trtdet", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return said, usage


def _cpu_us(call: Callable[[], object], count: int) -> float:
    call()
    start = time.process_time()
    call()
    return 1e6 * (time.process_time() - start) / count


if __name__ == "__main__":
    main()
