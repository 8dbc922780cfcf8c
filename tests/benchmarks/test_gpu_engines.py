"""Logits, throughput and stages of the engines, on a GPU made of the CPU."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.gpu_on_fake import (
    all_ok,
    left_open,
    rows,
)
from trtdet.benchmarks import (
    gpu_compiled,
    gpu_engines,
    gpu_throughput,
)
from trtdet.benchmarks.gpu_peak import peak_of
from trtdet.benchmarks.gpu_pictures import scored_pictures
from trtdet.benchmarks.gpu_record import Row, SectionRecord
from trtdet.benchmarks.gpu_section import MissingError, Request, WrongError
from trtdet.benchmarks.work import work_of
from trtdet.calibration.draw import draw_set
from trtdet.calibration.gate import Limits
from trtdet.calibration.images import write_set
from trtdet.calibration.judged import Judged, write_judged
from trtdet.engine.backends import infer
from trtdet.engine.bundle import GATE
from trtdet.engine.cuda import Gpu
from trtdet.engine.digest import sha256_file
from trtdet.engine.kernels import write_kernels
from trtdet.engine.plans import stored_plans
from trtdet.errors import BackendError


def test_the_logits_are_held_against_the_reference(gpu, bench, bundle):
    gpu_engines.run(bench)
    found = rows(bench)
    assert (found["small: plan"].status, found["small: probes"].status) == ("ok", "ok")
    assert found["small: gate"].reason.startswith("float32 has no gate")
    values = found["small: probes"].values
    assert values["from the bundle's"] < 1e-3
    assert values["from float32"] == values["from the bundle's"]
    assert values["repeats exactly"]
    strict = replace(bundle, tolerance=0.0)
    if values["from the bundle's"] == 0:
        pytest.skip("OpenVINO gives torch's very bits here")
    with pytest.raises(WrongError, match="further from the bundle's"):
        gpu_engines.check_probes(strict, [], {})


def test_the_gate_is_judged_again_on_the_gpu(gpu, bench, bundle, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(72):
        pixels = rng.integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC).save(
            folder / f"{index}.png"
        )
    chosen = draw_set(folder, size=32, gate_size=40)
    write_set(chosen, folder / "set.json")
    images = chosen.of("gate")
    session, _said = gpu_compiled.open_compiled(bundle, 1)
    logits = infer(session, [each.views(bundle.geometry) for each in images])
    session.close()
    write_judged(Judged([each.sha256 for each in images], logits, logits, None), bundle.path)
    report = {
        "verdict": "passed", "limits": asdict(Limits()), "images": {"generated": False},
        "compared": {},
    }  # fmt: skip
    hashes = {**bundle.hashes, GATE: sha256_file(bundle.path / GATE)}
    judged = replace(bundle, precision="int8", precision_report=report, hashes=hashes)
    found = {}
    request = replace(bench.request, calibration=folder / "set.json")
    gpu_engines.check_gate(judged, request, found)
    assert found["images"] == 40
    assert found["here"].endswith("on tensorrt 10.99.0 Fake GPU")
    assert found["int8 on tensorrt 10.99.0 Fake GPU, logit"]["largest"] == 0
    with pytest.raises(MissingError, match="--calibration SET"):
        gpu_engines.check_gate(judged, bench.request, {})
    judged.path.joinpath(GATE).unlink()
    write_judged(Judged([each.sha256 for each in images], -logits, logits, None), bundle.path)
    off = replace(judged, hashes={**hashes, GATE: sha256_file(bundle.path / GATE)})
    with pytest.raises(WrongError, match="not near enough"):
        gpu_engines.check_gate(off, request, {})


def test_throughput_stages_and_end_to_end(gpu, bench, bundle, monkeypatch):
    monkeypatch.setattr(gpu_throughput, "BATCHES", (2, 1))
    monkeypatch.setattr(gpu_throughput, "_END_TO_END_S", 0.1)
    monkeypatch.setattr(gpu_throughput, "scored_pictures", partial(scored_pictures, count=6))
    size = [*bundle.geometry.fixed_size, 3]
    peers = [
        Row("tiny-ladeda eager, batch 2", "ok", values={"input": [2, *size], "images/s": 4.0}),
        Row("tiny-ladeda eager, batch 1", "ok", values={"input": [1, 9, 9, 3], "images/s": 4.0}),
        Row("tiny-ladeda torch.compile, batch 2", "failed"),
    ]
    bench.record.sections["torch"] = SectionRecord("PyTorch", peers)
    gpu_throughput.run(bench)
    found = rows(bench)
    assert all_ok(bench), found
    assert [name.split(": ")[1] for name in found] == [
        "plan",
        "network",
        "stages",
        "end to end",
    ] * 2
    network = found["small, batch 2: network"].values
    assert network["multiply-adds"] == work_of(bundle) > 0
    assert network["TFLOP/s"] == pytest.approx(2e-12 * work_of(bundle) * network["images/s"])
    assert "no data sheet of Fake GPU" in network["of dense peak"]
    assert network["times PyTorch fp16 eager"] == pytest.approx(
        network["images/s in one stream"] / 4
    )
    other = found["small, batch 1: network"].values
    assert not [key for key in (*other, *network) if key == "times PyTorch fp16 torch.compile"]
    assert "times PyTorch fp16 eager" not in other
    stages = found["small, batch 2: stages"].values
    assert list(stages["share"]) == ["decode", "load", "upload", "kernels", "network", "download"]
    assert sum(stages["share"].values()) == pytest.approx(1)
    assert min(stages["us per image"].values()) > 0  # it stretches: the kernels do it
    whole = found["small, batch 2: end to end"].values
    assert (whole["failed"], whole["files"] >= 24) == (0, True)
    assert whole["of the network alone"] == pytest.approx(whole["images/s"] / network["images/s"])
    assert whole["bottleneck"] == max(whole["busy"], key=whole["busy"].get)
    busy = 1e-6 * stages["us per image"]["network"] * whole["images/s"]
    assert whole["busy"]["network"] == pytest.approx(busy)
    scores = (bench.request.work / "scores.csv").read_text().splitlines()
    assert len(scores) >= 1 + 12
    assert [plan.key.batch for plan in stored_plans(bundle.plans)] == [bundle.batch]
    assert left_open(gpu) == {}


def test_the_clock_follows_the_work(gpu, bundle):
    def ms_per_batch() -> float:
        found = {}
        gpu_throughput.time_network(bundle, 1, {}, found)
        return found["ms per batch"]

    quick = ms_per_batch()
    gpu.delay_s = 0.02
    assert ms_per_batch() > quick + 15


def test_without_kernels_the_host_resizes_and_that_is_noted(gpu, bundle, monkeypatch):
    def no_compiler(_arch):
        raise BackendError("no nvcc")

    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", no_compiler)
    found = {}
    gpu_compiled.ensure_compiled(bundle, 1, found)
    assert found["resized on the host"] == "no nvcc"
    stages = {}
    gpu_throughput.measure_stages(bundle, 1, scored_pictures(Request(bundle.path), 2), stages)
    assert stages["us per image"]["kernels"] == 0


def test_a_lost_gpu_is_one_row(gpu, bench, bundle):
    paths = scored_pictures(bench.request, 2)
    gpu.fails_after = 3
    gpu_throughput.measure_batch(bench, bundle, 1, paths)
    lost = rows(bench)["small, batch 1: network"]
    assert lost.status == "failed"
    assert "illegal memory access" in lost.reason


def test_a_peak_is_of_the_very_card():
    assert peak_of("NVIDIA H200").of("int8") == 1978.9
    assert peak_of("NVIDIA A100-SXM4-80GB").of("fp16") == 312
    assert peak_of("Tesla T4").of("fp32") == 8.1
    assert peak_of("NVIDIA GeForce RTX 4090").of("auto") == 82.6
    for other in ("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A10G", "Orin",
                  "NVIDIA A100-SXM4-40GB MIG 1g.5gb"):  # fmt: skip
        with pytest.raises(MissingError, match=other.split()[-1]):
            peak_of(other)


def test_drawn_files_are_made_once_and_differ(tmp_path):
    request = Request(tmp_path)
    paths = scored_pictures(request, 5)
    assert {Image.open(path).size for path in paths} == {(500, 400)}
    assert len({path.read_bytes() for path in paths}) == 5
    before = [path.stat().st_mtime_ns for path in paths]
    time.sleep(0.01)
    assert [path.stat().st_mtime_ns for path in scored_pictures(request, 5)] == before


def test_kernels_of_a_bundle_are_written_once(gpu, bundle):
    first = write_kernels(bundle.path, Gpu().target)
    gpu_compiled.ensure_compiled(bundle, 1, {})
    assert list((bundle.path / "kernels").iterdir()) == [first]
