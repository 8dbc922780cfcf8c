"""The peers see what trtdet sees, and what they gave is put together rightly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="peers are torch modules (trtdet[build])")

from tests.conftest import read_rows, run_trtdet, write_rows  # noqa: E402
from trtdet.benchmarks.peer_tables import best, peers, peers_batches, peers_network  # noqa: E402
from trtdet.benchmarks.peers.contender import Task  # noqa: E402
from trtdet.benchmarks.peers.nets import NETS  # noqa: E402
from trtdet.benchmarks.peers.paper_script import score_files  # noqa: E402
from trtdet.benchmarks.peers.paper_tower import PaperTower  # noqa: E402
from trtdet.build.detectors.registry import find_detector, find_geometry  # noqa: E402
from trtdet.build.graph import EngineModule  # noqa: E402
from trtdet.build.load import load_detectors  # noqa: E402
from trtdet.engine.geometry import apply_geometry  # noqa: E402


@pytest.mark.parametrize("name", NETS)
def test_a_papers_transforms_give_trtdets_input(name, pictures):
    net = NETS[name]
    spec = find_detector(net.model)
    geometry, _name = find_geometry(spec, net.geometry)
    module = EngineModule(torch.nn.Identity(), spec.normalization)
    for path in pictures:
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
            theirs = net.transform(image.convert("RGB"))
        ours = module.normalize(torch.tensor(apply_geometry(geometry, rgb)))[0]
        assert torch.allclose(theirs, ours, atol=1e-6), path


def test_the_script_gives_trtdets_scores(synthetic_weights, built, pictures, tmp_path):
    folder = built("npr", "progan-4class", geometry="stretch-256", name="peer")
    network = NETS["npr"].load(synthetic_weights("npr", "progan-4class"), None)
    logits, rate = score_files(network, NETS["npr"].transform, pictures[:3], batch=2, workers=0)
    table = write_rows(tmp_path / "in.csv", map(str, pictures[:3]))
    run_trtdet("score", "--engine", folder, table, tmp_path / "out.csv")
    scores = [float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]]
    assert logits == pytest.approx(scores, abs=1e-4, rel=1e-4)
    assert rate > 0


def test_the_papers_tower_gives_the_towers_features(synthetic_files):
    weights, backbone = synthetic_files("rine", "2class")
    loaded = load_detectors([find_detector("rine")], [weights], ["2class"], backbone)
    tower = loaded.network.tower
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected, given = tower(image), PaperTower(tower, loaded.tower.config).eval()(image)
    assert torch.allclose(given.taps, expected.taps, atol=1e-5)
    assert torch.allclose(given.last, expected.last, atol=1e-5)


def test_a_contender_runs_in_a_process_of_its_own(built, synthetic_weights, pictures):
    folder = built("npr", "progan-4class", geometry="stretch-256", name="peer")
    weights = synthetic_weights("npr", "progan-4class")
    images = tuple(map(str, pictures[:2]))
    task = Task("trtdet", "npr", str(weights), None, str(folder), images, 1, 1, 0, 0.3)
    done = subprocess.run(
        [sys.executable, "-m", "trtdet.benchmarks.peers.contender", task.to_json()],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["images_per_s"] > 0


@pytest.mark.full
def test_all_peers_of_a_network(synthetic_weights, tmp_path):
    weights = synthetic_weights("npr", "npr")
    out = tmp_path / "peers.json"
    command = [sys.executable, "-m", "trtdet.benchmarks.peers", "--npr", str(weights), "--recipe",
               "npr", "--rounds", "1", "--seconds", "0.1", "--count", "4", "--out", str(out),
               "--work", str(tmp_path / "work")]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    record = json.loads(out.read_text())
    assert record["weights"] == {"npr": {"file": weights.name, "generated": True}}
    ran = {row["contender"] for row in record["results"] if "images_per_s" in row}
    expected = {"paper script", "trtdet", "eager", "benchmark_app", "trtdet network"}
    if find_spec("onnxruntime"):
        expected.add("ONNX Runtime")
    if shutil.which("g++"):
        expected.add("torch.compile")
    assert ran >= expected
    assert "| NPR (generated weights) |" in done.stdout


RECORD = {
    "machine": {"cpu": "CPU", "cores": 2, "features": ["AVX2"]},
    "versions": {"openvino": "1", "python": "3", "torch": "2", "onnxruntime": "4"},
    "commit": "abc", "rounds": 3, "seconds": 10.0, "threads": 2,
    "weights": {"npr": {"file": "npr.pth", "generated": True}},
    "results": [
        {"net": "npr", "kind": kind, "contender": contender, "precision": precision,
         "batch": batch,
         **({"images_per_s": rate, "rounds": [rate] * 3} if rate else {"reason": "it broke"})}
        for kind, contender, precision, batch, rate in (
            ("files", "paper script", "fp32", 1, 20.0), ("files", "paper script", "fp32", 16, 25.0),
            ("files", "trtdet", "fp32", 1, 50.0), ("files", "trtdet", "int8", 1, 150.0),
            ("network", "eager", "fp32", 1, 30.0), ("network", "torch.compile", "fp32", 1, None),
            ("network", "trtdet network", "int8", 1, 200.0),
        )
    ],
}  # fmt: skip


def test_ratios_are_of_the_better_batches():
    assert best(RECORD, "npr", "files", "paper script", "fp32")["batch"] == 16
    table = peers({"peers": RECORD})
    assert "| NPR (generated weights) | 25 | 50 | 2.00 | 150 | 6.00 |" in table
    assert "medians of 3 alternating rounds of 10 s" in table
    assert "Weights are generated, not released, for NPR." in table
    alone = peers_network({"peers": RECORD})
    assert "| NPR (generated weights), FP32 | 30 | - | - | - | - |" in alone
    assert "| NPR (generated weights), INT8 | - | - | - | - | 200 |" in alone


def test_every_batch_is_compared_with_the_same():
    table = peers_batches({"peers": RECORD})
    assert "| NPR, FP32 | 1 | 20 | 50 | 2.50 | 30 | - | - | - | - |" in table
    assert "| NPR, FP32 | 16 | 25 | - | - | - | - | - | - | - |" in table
    assert "| NPR, INT8 | 1 | 20 | 150 | 7.50 | - | - | - | - | 200 |" in table
