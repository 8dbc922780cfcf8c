"""A bundle's plans: compiled once, found again, whole or not there. All plans here are real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.build.plan_graphs import write_bundle
from trtdet.build import compile as compile_module
from trtdet.build import plan_order
from trtdet.build.builder import CURRENT
from trtdet.build.compile import compile_bundle
from trtdet.build.plan_builder import build_plan
from trtdet.build.plan_settings import PlanSettings
from trtdet.engine.bundle import Bundle
from trtdet.engine.lock import locked
from trtdet.engine.plans import WantedPlan, find_plan, stored_plans, write_plan
from trtdet.engine.store import store_folder
from trtdet.errors import BackendError, InputError, PlanMissError

trt = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed", exc_type=ImportError
)

# Enough layers that a test can act while TensorRT compiles: about a second.
SLOW = 300

COMPILE = """
import sys; from pathlib import Path
from trtdet.build.compile import compile_bundle
from trtdet.engine.bundle import open_bundle
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
say = lambda line: print(line, file=sys.stderr, flush=True)
print(compile_bundle(open_bundle(Path(sys.argv[1])), "sm_86", on_progress=say))
"""


def wanted(bundle: Bundle, **change) -> WantedPlan:
    fields = {
        "flavour": "tensorrt-rtx",
        "version": trt.__version__,
        "target": "sm_86",
        "graph_sha256": bundle.hashes["model.onnx"],
        "batch": bundle.batch,
        **change,
    }
    return WantedPlan(**fields)


def start(bundle: Bundle) -> subprocess.Popen[str]:
    """A process that has imported everything, and compiles when it gets a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", COMPILE, str(bundle.path)]
    process = subprocess.Popen(command, text=True, **pipes)
    assert process.stderr.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> str:
    """Let it compile; its first line."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stderr.readline()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "small")


@pytest.fixture
def slow_bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "slow", layers=SLOW)


def test_a_plan_is_compiled_once_and_found(bundle: Bundle) -> None:
    lines: list[str] = []
    path = compile_bundle(bundle, "sm_86", on_progress=lines.append)
    assert path.parent == bundle.plans
    assert re.fullmatch(r"sm_86: tensorrt-rtx .* compiles model.onnx for batches of 1", lines[0])
    found = find_plan(bundle.plans, wanted(bundle))
    assert (found.path, found.data) == (path, path.read_bytes())
    before = path.stat().st_mtime_ns
    lines.clear()
    assert compile_bundle(bundle, "sm_86", on_progress=lines.append) == path
    assert lines == [f"sm_86: {path.name} is there already"]
    assert path.stat().st_mtime_ns == before
    assert list((store_folder() / "locks").iterdir()) == []


def test_force_compiles_again(bundle: Bundle) -> None:
    lines: list[str] = []
    path = compile_bundle(bundle, "sm_86")
    os.utime(path, (0, 0))
    assert compile_bundle(bundle, "sm_86", force=True, on_progress=lines.append) == path
    assert path.stat().st_mtime > 0
    assert any(" MB in " in line for line in lines)


@pytest.mark.parametrize("damage", ["plan", "record", "no record", "not ours"])
def test_what_is_no_plan_of_ours_is_compiled_again(bundle: Bundle, damage: str) -> None:
    path = compile_bundle(bundle, "sm_86")
    if damage == "plan":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "record":
        path.with_suffix(".json").write_text('{"key": {}, ')
    elif damage == "no record":
        path.with_suffix(".json").unlink()
    else:
        for marker in (store_folder() / "built").iterdir():
            marker.unlink()
    with pytest.raises(PlanMissError):
        find_plan(bundle.plans, wanted(bundle))
    lines: list[str] = []
    assert compile_bundle(bundle, "sm_86", on_progress=lines.append) == path
    assert any(" MB in " in line for line in lines)
    assert find_plan(bundle.plans, wanted(bundle)).path == path


def test_other_settings_are_other_plans_and_the_same_to_who_runs_them(bundle: Bundle) -> None:
    first = compile_bundle(bundle, "sm_86")
    os.utime(first, (0, 0))
    second = compile_bundle(bundle, "sm_86", settings=PlanSettings(level=1))
    assert second != first
    assert find_plan(bundle.plans, wanted(bundle)).path == second
    assert len(list(stored_plans(bundle.plans))) == 2


def test_a_range_of_batches(bundle: Bundle) -> None:
    path = compile_bundle(bundle, "sm_86", (1, 4, 16))
    assert "-b1-4-16-" in path.name
    for batch in (1, 4, 16):
        assert find_plan(bundle.plans, wanted(bundle, batch=batch)).path == path
    with pytest.raises(PlanMissError, match="another batch: 1 to 16 there, 17 here"):
        find_plan(bundle.plans, wanted(bundle, batch=17))
    for profile in ((4, 1, 16), (0, 1, 2)):
        with pytest.raises(InputError, match=r"MIN,OPT,MAX|give 1 or more"):
            compile_bundle(bundle, "sm_86", profile)


def test_ten_crops_are_ten_images_each(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "crops", ten_crop=True, batch=2)
    compile_bundle(bundle, "sm_86")
    compile_bundle(bundle, "sm_86", 3)
    compile_bundle(bundle, "sm_86", (1, 2, 4))
    keys = [plan.key for plan in stored_plans(bundle.plans)]
    assert sorted(key.batches for key in keys) == [(10, 40), (20, 20), (30, 30)]


def test_a_bundle_that_cannot_be_written_has_its_plans_in_the_store(bundle: Bundle) -> None:
    bundle.plans.write_text("no folder")
    path = compile_bundle(bundle, "sm_86")
    assert path.parent == store_folder() / "plans" / bundle.hashes["model.onnx"]
    assert find_plan(bundle.plans, wanted(bundle)).path == path
    assert compile_bundle(bundle, "sm_86") == path


def test_a_store_that_cannot_be_written_is_told_before_the_build(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "file/home"))
    with pytest.raises(InputError, match=r"cannot write the store .*: set TRTDET_HOME"):
        compile_bundle(bundle, "sm_86", on_progress=lines.append)
    assert lines == []


def test_a_refused_graph_leaves_nothing(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bad", image="pixels")
    with pytest.raises(InputError, match="has pixels UINT8"):
        compile_bundle(bundle, "sm_86")
    assert not bundle.plans.exists()
    assert list((store_folder() / "locks").iterdir()) == []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU; what is compiled is TensorRT-RTX's plan for all GPUs."""
    monkeypatch.setattr(plan_order, "current_gpu", lambda _index: ("sm_86", "NVIDIA A10"))
    monkeypatch.setattr(plan_order, "offered_targets", lambda _library: {})


@pytest.mark.usefixtures("gpu")
def test_a_missing_plan_is_compiled_for_the_gpu_of_this_machine(bundle: Bundle) -> None:
    lines: list[str] = []
    path = compile_bundle(bundle, CURRENT, 2, on_progress=lines.append)
    assert find_plan(bundle.plans, wanted(bundle, batch=2, device="NVIDIA A10")).path == path
    with pytest.raises(PlanMissError, match="another GPU: NVIDIA A10 there, NVIDIA A16 here"):
        find_plan(bundle.plans, wanted(bundle, batch=2, device="NVIDIA A16"))
    assert (
        compile_bundle(bundle, CURRENT, 2, on_progress=lines.append, flavour="tensorrt-rtx") == path
    )
    assert lines[-1].endswith("is there already")
    own = compile_bundle(bundle, CURRENT, None, on_progress=lines.append)
    assert find_plan(bundle.plans, wanted(bundle)).path == own


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_tensorrt_rtx_does_not_offer_has_a_plan_for_all(bundle: Bundle) -> None:
    lines: list[str] = []
    compile_bundle(bundle, CURRENT, 1, on_progress=lines.append)
    assert "does not compile for sm_86 alone: a plan for all GPUs is compiled" in lines[1]
    (plan,) = stored_plans(bundle.plans)
    assert (plan.key.target, plan.key.option("portable")) == ("sm_86", "on")


def test_where_this_gpus_own_plan_cannot_be_built_one_for_all_is(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, TensorRT-RTX itself refuses `ComputeCapability.CURRENT`."""
    built = []

    def build(order, progress, tell):
        built.append((order.capability, order.device))
        if order.capability is not None:
            raise BackendError("it does not support this GPU")
        return build_plan(order, progress, tell)

    monkeypatch.setattr(plan_order, "current_gpu", lambda _index: ("sm_86", "NVIDIA A10"))
    monkeypatch.setattr(compile_module, "build_plan", build)
    monkeypatch.setattr("trtdet.build.plan_builder.on_device", lambda _index: nullcontext())
    lines: list[str] = []
    path = compile_bundle(
        bundle, CURRENT, 1, on_progress=lines.append, flavour="tensorrt-rtx", device=1
    )
    assert built == [(trt.ComputeCapability.CURRENT, 1), (None, 1)]
    assert any(line.endswith("GPU. Instead a plan for all GPUs is compiled") for line in lines)
    assert find_plan(bundle.plans, wanted(bundle, batch=1)).path == path


def test_what_cannot_be_compiled_here_is_scored_on_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments):
        raise BackendError("no tactic")

    monkeypatch.setattr(plan_order, "current_gpu", lambda _index: ("sm_86", "NVIDIA A10"))
    monkeypatch.setattr(compile_module, "build_plan", fail)
    with pytest.raises(BackendError) as caught:
        compile_bundle(bundle, CURRENT, 1)
    assert str(caught.value) == "no tactic. To score on the CPU: `--backend openvino`"
    with pytest.raises(BackendError, match=r"^no tactic$"):
        compile_bundle(bundle, "sm_86")


@pytest.mark.usefixtures("gpu")
def test_tensorrt_rtx_has_no_kernel_times_to_keep(bundle: Bundle) -> None:
    compile_bundle(bundle, CURRENT, 1)
    assert not (store_folder() / "timing").exists()


def test_two_processes_compile_a_plan_once(slow_bundle: Bundle) -> None:
    processes = [start(slow_bundle) for _ in range(2)]
    firsts = [begin(process) for process in processes]
    outcomes = [process.communicate(timeout=60) for process in processes]
    said = [first + stderr for first, (_, stderr) in zip(firsts, outcomes, strict=True)]
    assert [process.returncode for process in processes] == [0, 0], said
    assert outcomes[0][0] == outcomes[1][0]  # the same path
    assert sum(" MB in " in lines for lines in said) == 1, said
    assert sum("is there already" in lines for lines in said) == 1, said


def test_the_second_process_waits_for_the_first(bundle: Bundle) -> None:
    path = compile_bundle(bundle, "sm_86")
    plan = find_plan(bundle.plans, wanted(bundle))
    record = path.with_suffix(".json")
    record.unlink()  # nobody has compiled it yet
    lock = store_folder() / "locks" / f"{path.name}.lock"
    with start(bundle) as process:
        with locked(lock, on_wait=lambda: pytest.fail("nobody has it")):
            line = begin(process)
            assert line == "sm_86: another process is compiling this plan: waiting\n"
            write_plan(bundle.plans, plan)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, f"{path}\n")
    assert stderr == f"sm_86: {path.name} is there already\n"


def test_a_killed_build_leaves_nothing_that_matters(slow_bundle: Bundle) -> None:
    with start(slow_bundle) as process:
        assert " compiles " in begin(process)
        time.sleep(0.1)
        process.kill()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert " MB in " not in stderr
    assert not slow_bundle.plans.exists()
    (lock,) = (store_folder() / "locks").iterdir()  # the file stays, its lock does not
    lines: list[str] = []
    path = compile_bundle(slow_bundle, "sm_86", on_progress=lines.append)
    assert not any("waiting" in line for line in lines)
    assert find_plan(slow_bundle.plans, wanted(slow_bundle)).path == path
    assert not lock.exists()


def test_a_plan_of_the_bundles_last_graph_is_none(bundle: Bundle, tmp_path: Path) -> None:
    compile_bundle(bundle, "sm_86")
    again = write_bundle(tmp_path / "again", seed=1)
    bundle.plans.rename(again.plans)
    with pytest.raises(PlanMissError, match="another graph: the bundle was built again"):
        find_plan(again.plans, wanted(again))
    record = json.loads(next(again.plans.glob("*.json")).read_text())
    assert record["key"]["graph_sha256"] == bundle.hashes["model.onnx"]
