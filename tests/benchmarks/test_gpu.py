"""The whole run on a machine without a GPU, and the sections that need none."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import subprocess
import sys
from functools import partial

import pytest

from tests.benchmarks.gpu_on_fake import make_bench
from trtdet.benchmarks import gpu, gpu_bundles, gpu_machine, gpu_state
from trtdet.benchmarks.gpu_record import Record
from trtdet.benchmarks.gpu_section import MissingError
from trtdet.engine.bundle import GRAPH, open_bundle
from trtdet.engine.store import starter_bundle

NEEDS_A_GPU = {"pycuda", "kernels", "sanitizer", "kernel-speed", "torch", "bundles", "engines",
               "throughput"}  # fmt: skip

SMI = """#!/bin/sh
case "$*" in
  *no.such.field*) echo 'Field "no.such.field" is not a valid field to query.'; exit 2;;
  *loop-ms*) while :; do
    echo '1980, 3201, 412.50, 61'; echo '1800, 3201, [N/A], 63'; sleep 0.05; done;;
  *=name,power.draw\\ *) echo 'NVIDIA H200, [N/A]';;
  *=name\\ *) echo 'NVIDIA H200';;
  *) echo '[Not Supported]';;
esac
"""


@pytest.fixture
def no_gpu() -> None:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        pytest.skip("this machine has a GPU")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_every_section_says_why_it_did_not_run(tmp_path):
    command = [sys.executable, "-m", "trtdet.benchmarks.gpu", "--out", tmp_path, "--minutes", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    sections = content["sections"]
    assert list(sections) == [section.name for section in gpu.SECTIONS]
    for name in NEEDS_A_GPU:
        assert not sections[name]["rows"], name
        reason = sections[name]["reason"]
        assert ": " in reason or "not on PATH" in reason or "sees no GPU" in reason, (name, reason)
    assert "pycuda does not load (No module named" in sections["pycuda"]["reason"]
    assert "--only bundles" in sections["bundles"]["reason"]
    machine = {row["name"]: row for row in sections["machine"]["rows"]}
    assert machine["CPU, versions, commit"]["values"]["machine"]["cores"] >= 1
    assert "libcuda.so.1" in machine["NVIDIA driver"]["reason"]
    statuses = {row["status"] for row in sections["plans"]["rows"]}
    assert statuses == {"skipped"}
    assert all(row["reason"] for row in sections["plans"]["rows"])
    assert done.stdout == (tmp_path / "gpu.md").read_text() + "\n"
    assert content["about"]["versions"]["numpy"]


def test_wrong_arguments_are_told(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path), "--build", "rine"]) == 2
    assert "MODEL:PRECISION" in capsys.readouterr().err
    assert gpu.main(["--out", str(tmp_path), "--bundles", "no-such-bundle"]) == 2
    assert "no engine 'no-such-bundle'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert gpu.main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_something_wrong_is_an_exit_code(tmp_path, monkeypatch):
    def find_it_wrong(_sections, out, _command, _seconds):
        record = Record(out)
        section = record.begin("kernels", "Kernels")
        section.rows.append(gpu_row("wrong"))
        record.save()

    monkeypatch.setattr(gpu, "run_sections", find_it_wrong)
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    assert gpu.main(["--out", str(tmp_path)]) == 1


def gpu_row(status):
    from trtdet.benchmarks.gpu_record import Row

    return Row("a row", status, reason="3 bytes differ")


def test_given_bundles_are_copied_and_theirs_is_left_alone(tmp_path, small_bundle):
    theirs = shutil.copytree(small_bundle, tmp_path / "theirs" / "small")
    (theirs / "plans").mkdir()
    (theirs / "plans" / "big.plan").write_bytes(b"theirs")
    other = shutil.copytree(small_bundle, tmp_path / "others" / "small")
    before = sorted((path, path.stat().st_mtime_ns) for path in theirs.rglob("*"))
    bench = make_bench(tmp_path / "out", bundles=(str(theirs), str(other), str(tmp_path)))
    stale = bench.request.work / "bundles" / "stale"
    stale.mkdir(parents=True)
    gpu_bundles.run(bench)
    rows = bench.section.rows
    assert [(row.name, row.status) for row in rows] == [
        ("small-1", "ok"), ("small-2", "ok"), (tmp_path.name, "failed"),
    ]  # fmt: skip
    assert "is not a bundle" in rows[2].reason
    assert not stale.exists()
    copies = gpu_bundles.open_bundles(bench.request)
    assert [copy.path.name for copy in copies] == ["small-1", "small-2"]
    assert not copies[0].plans.exists()
    assert copies[0].graph.stat().st_ino == (theirs / GRAPH).stat().st_ino  # no second copy
    assert sorted((path, path.stat().st_mtime_ns) for path in theirs.rglob("*")) == before
    assert gpu_bundles.reference_of(copies[1], copies) == copies[0]


def test_a_bundle_is_built_from_random_weights_and_kept(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="building needs torch (trtdet[build])")
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "home"))
    bench = make_bench(tmp_path / "out", builds=("tiny-ladeda:fp32",), asked=True)
    gpu_bundles.run(bench)
    starter, built = bench.section.rows
    assert (starter.status, built.status) == ("ok", "ok")
    assert starter.values["detector"] == open_bundle(starter_bundle()).detector
    assert (built.values["detector"], built.values["precision"]) == ("tiny-ladeda", "fp32")
    again = make_bench(tmp_path / "out", builds=("tiny-ladeda:fp32",), asked=True)
    gpu_bundles.run(again)
    assert all("kept" in row.values for row in again.section.rows)


def test_the_peer_is_timed(monkeypatch):
    pytest.importorskip("torch", reason="building needs torch (trtdet[build])")
    from trtdet.benchmarks import gpu_torch
    from trtdet.build.detectors.registry import find_detector

    monkeypatch.setattr(gpu_torch, "_WARM_UP_S", 0.0)
    monkeypatch.setattr(gpu_torch, "_MEASURE_S", 0.0)
    found = {}
    gpu_torch.time_detector(find_detector("tiny-ladeda"), 2, found, device="cpu")
    assert (found["runs"], found["finite"]) == (5, True)
    assert 0.1 < found["images/s"] / (2000 / found["ms"]) < 10  # one by one, or in a queue


@pytest.mark.skipif(os.name != "posix", reason="a program of the shell's")
def test_what_nvidia_smi_does_not_know_is_left_out(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_state.query_gpu(("name", "power.draw")) == {"name": "NVIDIA H200"}
    assert gpu_state.query_gpu(("name", "no.such.field")) == {"name": "NVIDIA H200"}
    with pytest.raises(MissingError, match="not a valid field"):
        gpu_state.query_gpu(("no.such.field",))
    with gpu_state.gauges(50) as found:
        subprocess.run(["sleep", "0.3"], check=True)
    assert found["clocks.sm"] in (1800, 1890, 1980)
    assert found["power.draw"] == 412.5


def test_a_library_that_does_not_load_says_so(tmp_path):
    bench = make_bench(tmp_path)
    bench.row("import", partial(gpu_machine._import, "no_such_tensorrt"))
    assert bench.section.rows[0].status == "skipped"
    assert "No module named 'no_such_tensorrt'" in bench.section.rows[0].reason
