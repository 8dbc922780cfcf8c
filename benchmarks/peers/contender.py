"""One contender, once, in a process of its own: its images per second on standard output, as JSON.

    python -m trtdet.benchmarks.peers.contender '{"contender": "eager", "net": "npr", ...}'

A process of its own, because thread pools of several libraries in one process slow each other down.
Loading, compilation and a warm-up are not counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.peers.nets import NETS
from trtdet.benchmarks.steady import steady_rate
from trtdet.engine.bundle import INPUT_NAME, open_bundle


@dataclass(frozen=True)
class Task:
    """What a contender is given; paths as text, so that it passes through JSON."""

    contender: str
    net: str
    weights: str
    backbone: str | None
    bundle: str  # of the precision that is compared
    images: tuple[str, ...]
    batch: int
    threads: int
    workers: int
    seconds: float

    @property
    def paths(self) -> list[Path]:
        """Of the images."""
        return [Path(each) for each in self.images]

    def to_json(self) -> str:
        """For the process of its own."""
        return json.dumps(asdict(self))


def main() -> None:
    """Run the task in the first argument."""
    task = Task(**json.loads(sys.argv[1]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.threads])
    print(json.dumps({"images_per_s": CONTENDERS[task.contender](task)}))


def paper_script(task: Task) -> float:
    """From files to scores as a paper's script does it."""
    from trtdet.benchmarks.peers.paper_script import score_files

    network = _network(task)
    _logits, rate = score_files(
        network,
        NETS[task.net].transform,
        list(islice(cycle(task.paths), 1_000_000)),
        batch=task.batch,
        workers=task.workers,
        seconds=task.seconds,
    )
    return rate


def trtdet_files(task: Task) -> float:
    """From files to scores by trtdet."""
    from trtdet.benchmarks.bench_pipeline import time_whole
    from trtdet.engine.backends import choose_backend
    from trtdet.engine.engine import open_engine

    backend, _rejected = choose_backend("openvino")
    with open_engine(backend, open_bundle(Path(task.bundle)), batch=task.batch) as engine:
        return time_whole(engine, task.paths, task.threads, task.seconds).images_per_s


def eager(task: Task) -> float:
    """The network in PyTorch."""
    return _torch(task, lambda module: module)


def compiled(task: Task) -> float:
    """The network through torch.compile."""
    import torch

    return _torch(task, torch.compile)


def onnxruntime(task: Task) -> float:
    """The bundle's graph in ONNX Runtime: all threads on a batch, or a batch on every thread."""
    import onnxruntime as ort

    graph = str(open_bundle(Path(task.bundle)).graph)
    feed = {INPUT_NAME: _inputs(task)}
    rates = []
    for at_once in {1, task.threads}:
        options = ort.SessionOptions()
        options.intra_op_num_threads = task.threads // at_once
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        once = partial(session.run, None, feed)
        rates.append(task.batch * runs_side_by_side(once, at_once, task.seconds / 2))
    return max(rates)


def benchmark_app(task: Task) -> float:
    """The bundle's graph in OpenVINO's own tool, with as many streams and threads."""
    bundle = open_bundle(Path(task.bundle))
    height, width = bundle.geometry.fixed_size
    done = subprocess.run(
        [sys.executable, "-c", _BENCHMARK_APP, "-m", str(bundle.graph), "-d", "CPU",
         "-shape", f"{INPUT_NAME}[{task.batch},{height},{width},3]",
         "-nstreams", str(task.threads), "-nthreads", str(task.threads),
         "-t", str(max(1, round(task.seconds))), "-infer_precision", "f32", "-hint", "none"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise SystemExit(f"benchmark_app printed no throughput but {said[-1]}")
    return float(found[1])


# What the console script of that name does; it may not lie beside this Python.
_BENCHMARK_APP = "from openvino.tools.benchmark.main import main; main()"


def trtdet_network(task: Task) -> float:
    """The bundle's graph in trtdet's session, from memory."""
    from trtdet.benchmarks.bench_network import Setting, time_network
    from trtdet.engine.backends import choose_backend

    backend, _rejected = choose_backend("openvino")
    views = [each[None] for each in _inputs(task)]
    setting = Setting(task.batch, task.threads)
    bundle = open_bundle(Path(task.bundle))
    return time_network(backend, bundle, setting, views, task.seconds).images_per_s


CONTENDERS: dict[str, Callable[[Task], float]] = {
    "paper script": paper_script,
    "trtdet": trtdet_files,
    "eager": eager,
    "torch.compile": compiled,
    "ONNX Runtime": onnxruntime,
    "benchmark_app": benchmark_app,
    "trtdet network": trtdet_network,
}


def _network(task: Task) -> Any:
    import torch

    torch.set_num_threads(task.threads)
    backbone = Path(task.backbone) if task.backbone else None
    return NETS[task.net].load(Path(task.weights), backbone)


def _torch(task: Task, prepare: Callable[[Any], Any]) -> float:
    import torch

    from trtdet.build.detectors.registry import find_detector
    from trtdet.build.graph import EngineModule

    spec = find_detector(NETS[task.net].model)
    module = prepare(EngineModule(_network(task), spec.normalization).eval())
    batch = torch.from_numpy(_inputs(task))
    with torch.inference_mode():
        return task.batch * _runs_per_s(lambda: module(batch), task.seconds)


def _inputs(task: Task) -> NDArray[Any]:
    """A batch of the images as the network sees them, [batch, H, W, 3]."""
    from trtdet.benchmarks.bench_stages import read_material

    bundle = open_bundle(Path(task.bundle))
    views: Sequence[Any] = read_material(task.paths[: task.batch], bundle).views
    return np.concatenate([views[index % len(views)] for index in range(task.batch)])


def _runs_per_s(once: Callable[[], object], seconds: float) -> float:
    """After a warm-up; at least three runs."""
    once()
    once()
    runs, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or runs < 3:
        once()
        runs += 1
    return runs / passed


def runs_side_by_side(once: Callable[[], object], callers: int, seconds: float) -> float:
    """Runs per second of so many threads, none of which waits for another; at least four each."""
    once()
    deadline = time.perf_counter() + seconds

    def repeat(_caller: int) -> list[float]:
        ends: list[float] = []
        while len(ends) < 4 or ends[-1] < deadline:
            once()
            ends.append(time.perf_counter())
        return ends

    with ThreadPoolExecutor(callers) as threads:
        ends = sorted(chain.from_iterable(threads.map(repeat, range(callers))))
    busy = ends[:-callers]  # before the first one stood still
    return steady_rate(busy, range(1, len(busy) + 1))


if __name__ == "__main__":
    main()
