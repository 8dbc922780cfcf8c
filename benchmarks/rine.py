"""RINE beside its peers, and what leaving dead weight out of its tower saves.

    python -m trtdet.benchmarks.rine --weights HEAD --backbone CLIP [--images 8] [--rounds 3]
        [--int8 BUNDLE --table FILES.CSV]

Every round runs, one after the other on the same cores, at batch 1 and in float32: this project's
pipeline on image files (decoding included), OpenVINO's own `benchmark_app` on the bundle's graph
with as many streams and threads, and the same network in PyTorch eager. Medians over the rounds.
With `--int8` the INT8 bundle scores the files of a table, at its own batch, and PyTorch eager runs
at that batch, too. The tower's graph is also compared with the paper's: what CLIP's `encode_image`
computes.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn

from trtdet.benchmarks.record import describe_run
from trtdet.build.assemble import BuildRequest, build_bundle
from trtdet.build.clip_tower import Block, ClipTower, TowerOutput
from trtdet.build.detectors.registry import find_detector
from trtdet.build.detectors.spec import CLIP
from trtdet.build.graph import EngineModule, export_graph
from trtdet.build.load import Loaded, load_detectors
from trtdet.build.probes import make_probes
from trtdet.build.simplify import simplify_graph
from trtdet.build.tower_shapes import TowerConfig
from trtdet.calibration.multiply_adds import multiply_adds
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import INPUT_NAME, Bundle, open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.machine import core_count
from trtdet.engine.pipeline import score
from trtdet.engine.sink import open_sink
from trtdet.engine.table import open_table


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--int8", type=Path, help="an INT8 bundle of the same weights")
    parser.add_argument("--table", type=Path, help="the files that it scores")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        request = BuildRequest(
            model="rine",
            weights=(options.weights,),
            backbone=options.backbone,
            out=Path(folder) / "rine",
        )
        bundle = build_bundle(request, on_stage=lambda line: print(line, file=sys.stderr))
        table = _images(Path(folder), options.images)
        spec = find_detector("rine")
        loaded = load_detectors([spec], [options.weights], [None], options.backbone)
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            if options.int8:
                eight = open_bundle(options.int8)
                rates["trtdet int8"].append(_trtdet(eight, options.table, Path(folder)))
                eager = _eager(loaded, options.images, eight.batch)
                rates[f"torch eager, batch {eight.batch}"].append(eager)
            rates["trtdet"].append(_trtdet(bundle, table, Path(folder)))
            rates["benchmark_app"].append(_benchmark_app(bundle, options.images))
            rates["torch eager"].append(_eager(loaded, options.images))
        report = {"images/s": {name: median(each) for name, each in rates.items()}, "rounds": rates}
        report |= {"work": _work(bundle, loaded)}
    print(json.dumps(report, indent=1))
    if options.out:
        record = {**describe_run(), "images": options.images, **report}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _images(folder: Path, count: int) -> Path:
    """A table of drawn images, as PNG."""
    names = []
    for number in range(count):
        probe = make_probes(256, 256)[number % 4]
        names.append(f"{number}.png")
        Image.fromarray(np.roll(probe, number, axis=1)).save(folder / names[-1])
    with (folder / "input.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename"], *([name] for name in names)])
    return folder / "input.csv"


def _trtdet(bundle: Bundle, table: Path, folder: Path) -> float:
    backend, _rejected = choose_backend("openvino")
    with (
        open_table(str(table), sys.stdin.buffer) as opened,
        open_engine(backend, bundle) as engine,
        open_sink(str(folder / "output.csv"), None) as sink,
    ):
        return score(
            opened.rows(), opened.resolve, engine, sink, decode_threads=core_count()
        ).images_per_s


def _benchmark_app(bundle: Bundle, count: int) -> float:
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("OpenVINO's benchmark_app is not beside this Python: pip install openvino")
    height, width = bundle.geometry.fixed_size
    done = subprocess.run(
        [program, "-m", bundle.graph, "-d", "CPU", "-shape", f"image[1,{height},{width},3]",
         "-nstreams", str(core_count()), "-nthreads", str(core_count()), "-niter", str(count),
         "-infer_precision", "f32", "-hint", "none"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    if found is None:
        raise SystemExit(f"benchmark_app printed no throughput:\n{done.stdout[-2000:]}")
    return float(found[1])


def _eager(loaded: Loaded, count: int, batch: int = 1) -> float:
    module = EngineModule(loaded.network, CLIP).eval()
    images = torch.from_numpy(make_probes(224, 224))
    torch.set_num_threads(core_count())
    with torch.inference_mode():
        module(images[:1])
        start = time.perf_counter()
        for first in range(0, count, batch):
            module(images[np.arange(first, first + batch) % len(images)])
        return -(-count // batch) * batch / (time.perf_counter() - start)


class PaperTower(nn.Module):
    """What upstream runs, hooks aside: CLIP's `encode_image`, every token to the last layer."""

    def __init__(self, tower: ClipTower, config: TowerConfig):
        super().__init__()
        width, heads = config.width, config.heads
        self.tower = tower
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(config.layers)
        )
        self.last_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.Linear(4 * width, width))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Linear(width, config.output or width, bias=False)

    def forward(self, image: Tensor) -> TowerOutput:
        x = self.tower.embed(image)
        taps = []
        for block, attention in zip(self.tower.transformer.resblocks, self.attention, strict=True):
            assert isinstance(block, Block)
            y = block.ln_1(x)
            x = x + attention(y, y, y, need_weights=False)[0]
            normal = block.ln_2(x)
            taps.append(normal[:, 0])
            if block.mlp is not None:
                x = x + block.mlp(normal)
            else:
                hidden = self.last_mlp[0](normal)
                x = x + self.last_mlp[1](hidden * torch.sigmoid(1.702 * hidden))
        embedding = self.proj(self.ln_post(x[:, 0]))
        # An exporter would drop what nobody reads: upstream computes it, and throws it away.
        return TowerOutput(torch.stack(taps, 1) + 0.0 * embedding.sum(), x[:, 0])


def _work(bundle: Bundle, loaded: Loaded) -> dict[str, Any]:
    """Nodes and multiply-adds of the bundle's graph, and of the paper's as it is exported."""
    lean = onnx.load(bundle.graph)
    inputs = {INPUT_NAME: (1, *bundle.geometry.fixed_size, 3)}
    ours = {"nodes": len(lean.graph.node), "multiply_adds": multiply_adds(lean, inputs)}
    del lean
    assert loaded.tower is not None
    network: Any = loaded.network
    network.tower = PaperTower(network.tower, loaded.tower.config)
    paper = simplify_graph(export_graph(EngineModule(network, CLIP), *bundle.geometry.fixed_size))
    theirs = {"nodes": len(paper.graph.node), "multiply_adds": multiply_adds(paper, inputs)}
    return {"paper": theirs, "trtdet": ours}


if __name__ == "__main__":
    main()
