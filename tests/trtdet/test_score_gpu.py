"""`trtdet score` on a GPU made of the CPU, and without one."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import read_rows, run_trtdet, write_rows
from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.cli import main
from trtdet.engine import pipeline
from trtdet.engine.bundle import GRAPH, INPUT_NAME, Bundle, open_bundle
from trtdet.engine.decode import Limits
from trtdet.engine.fleet import open_fleet
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, write_plan


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    fake = install(monkeypatch)
    monkeypatch.setattr("trtdet.build.prepare.prepare", compile_fake)
    return fake


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(small_bundle, tmp_path / "mine"))


@pytest.fixture
def table(pictures, tmp_path) -> Path:
    return write_rows(tmp_path / "in.csv", map(str, pictures))


def compile_fake(bundle: Bundle, batch: int | None, *_given, **_options) -> Path:
    batch = batch or 3
    key = PlanKey("tensorrt", "10.99.0", "sm_86", bundle.hashes[GRAPH], batch, ())
    shape = [batch, *bundle.geometry.fixed_size, 3]
    return write_plan(bundle.plans, Plan(key, plan_of(bundle.graph, {INPUT_NAME: shape})))


def score(*arguments) -> int:
    """In this process, where the fake is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trtdet", "score", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_scores_are_those_of_the_cpu(gpu, bundle, table, tmp_path, capsys):
    assert score("--engine", bundle.path, table, tmp_path / "gpu.csv") == 0
    said = capsys.readouterr().err
    assert "no plan for tensorrt 10.99.0 on sm_86, batches of any size: there is none" in said
    assert "on tensorrt 10.99.0 Fake GPU" in said
    run_trtdet(
        "score", "--engine", bundle.path, "--backend", "openvino", table, tmp_path / "cpu.csv"
    )
    assert read_rows(tmp_path / "gpu.csv") == read_rows(tmp_path / "cpu.csv")


@pytest.mark.parametrize(
    "options", [("--slots", 1), ("--streams", 1, "--no-graph"), ("--batch", 5)]
)
def test_options_change_no_score(gpu, bundle, table, tmp_path, options):
    assert score("--engine", bundle.path, table, tmp_path / "one.csv") == 0
    assert score("--engine", bundle.path, *options, table, tmp_path / "two.csv") == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_without_a_build_a_missing_plan_is_an_error(gpu, bundle, table, tmp_path, capsys):
    assert score("--engine", bundle.path, "--no-build", table, tmp_path / "out.csv") == 4
    assert "trtdet compile" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_a_lost_gpu_is_exit_code_4_and_keeps_rows(
    gpu, bundle, table, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(pipeline, "LIVENESS_S", 0.05)
    compile_fake(bundle, 2, None)
    gpu.fails_after = 6  # the probes and what captures them need some
    options = ("--engine", bundle.path, "--slots", 1, "--no-graph")
    assert score(*options, table, tmp_path / "out.csv") == 4
    said = capsys.readouterr().err
    assert "Fake GPU failed: launch failed: an illegal memory access" in said.splitlines()[-1]
    assert "out.csv.journal; go on with: trtdet score --resume" in said
    gpu.fails_after = None
    assert score(*options, "--resume", table, tmp_path / "out.csv") == 0
    rows = read_rows(tmp_path / "out.csv")[1:]
    assert [row[0] for row in rows] == [str(path) for path in pictures]


def test_without_a_gpu_every_missing_piece_is_named(bundle, table, tmp_path):
    done = run_trtdet("score", "--engine", bundle.path, "--backend", "tensorrt", table,
                      tmp_path / "out.csv", check=False)  # fmt: skip
    assert done.returncode == 4
    for piece in ("NVIDIA driver: it does not load", "pycuda: ", "GPU: "):
        assert piece in done.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(("devices", "numbers"), [("1,0", [1, 0]), ("all", [0])])
def test_several_gpus_have_a_process_each(
    gpu, bundle, table, tmp_path, monkeypatch, capsys, devices, numbers
):
    """Processes have no fake GPU: they score on the CPU, with what the command gave them."""
    started = []

    def open_on_the_cpu(workers):
        started.extend(workers)
        how = {"decode_threads": 1, "limits": Limits(), "batch": 2}
        return open_fleet(
            [replace(each, backend="openvino", how={**each.how, **how}) for each in workers]
        )

    monkeypatch.setattr("trtdet.engine.gpus.open_fleet", open_on_the_cpu)
    out = tmp_path / "out.csv"
    assert score("--engine", bundle.path, "--devices", devices, "--threads", 6, table, out) == 0
    assert [each.label for each in started] == [f"GPU {number}" for number in numbers]
    assert [each.how["gpu"].device for each in started] == numbers
    assert [each.how["decode_threads"] for each in started] == [6 // len(numbers)] * len(numbers)
    assert f"{len(read_rows(table)) - 1} rows in" in capsys.readouterr().err
    run_trtdet("score", "--engine", bundle.path, "--backend", "openvino", table, tmp_path / "cpu")
    assert out.read_bytes() == (tmp_path / "cpu").read_bytes()


def test_several_gpus_need_gpus(bundle, table, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert score("--engine", bundle.path, "--devices", "0,1", table, output) == 2
    assert "--devices is for GPUs, and openvino would score" in capsys.readouterr().err
    for wrong in ("0,,1", "0,0", "first"):
        assert score("--devices", wrong, table, output) == 2
    assert not output.exists()
