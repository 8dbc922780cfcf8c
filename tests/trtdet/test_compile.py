"""`trtdet compile` as a user meets it: every case is a process of its own."""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.build.plan_graphs import write_bundle
from tests.conftest import run_trtdet
from trtdet.cli import cli
from trtdet.commands.gpu_options import make_gpu_options
from trtdet.engine.bundle import Bundle
from trtdet.engine.decision import Vote
from trtdet.engine.ensemble import make_ensemble
from trtdet.engine.lock import locked
from trtdet.engine.plans import stored_plans
from trtdet.engine.store import store_folder

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed", exc_type=ImportError
)

SLOW = 300  # layers: about a second of TensorRT's time


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "small")


def test_paths_go_to_standard_output_and_talk_to_standard_error(bundle: Bundle) -> None:
    done = run_trtdet("compile", bundle.path, "--target", "sm_86,sm_120")
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.parent for path in paths] == [bundle.plans] * 2
    assert all(path.is_file() for path in paths)
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["sm_86"] * 2 + ["sm_120"] * 2
    again = run_trtdet("compile", bundle.path, "--target", "sm_86,sm_120")
    assert again.stdout == done.stdout
    assert all(line.endswith("is there already") for line in again.stderr.splitlines())
    forced = run_trtdet("compile", bundle.path, "--target", "sm_86", "--force")
    assert " MB in " in forced.stderr


def test_every_option_is_in_the_key(bundle: Bundle) -> None:
    run_trtdet(
        "compile", bundle.path, "--target", "sm_86", "--profile", "1,8,32", "--workspace", "512",
        "--level", "2", "--no-timing-cache",
    )  # fmt: skip
    (plan,) = stored_plans(bundle.plans)
    assert plan.key.batch == 8
    assert dict(plan.key.options) == {
        "level": "2",
        "profile": "1,8,32",
        "tf32": "off",
        "user_allocation": "required",
        "workspace_mib": "512",
    }


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--profile", "1,8"], 2, "--profile 1,8 is not MIN,OPT,MAX"),
        (["--profile", "one,8,32"], 2, "give three numbers, for instance 1,8,32"),
        (["--profile", "9,8,32"], 2, "MIN,OPT,MAX in this order"),
        (["--profile", "1,8,32", "--batch", "8"], 2, "leave one of them out"),
        (["--level", "6"], 2, "--level"),
        (["--workspace", "0"], 2, "--workspace"),
        (["--version-compatible"], 2, "makes no version-compatible plans"),
        (["--flavour", "tensorrt"], 2, "only TensorRT-RTX compiles ahead of time"),
        (["--workspace", "1", "--batch", "64"], 4, "within workspace limit"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    bundle: Bundle, options: list[str], code: int, reason: str
) -> None:
    done = run_trtdet("compile", bundle.path, "--target", "sm_86", *options, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not bundle.plans.exists()


def test_current_needs_a_gpu(bundle: Bundle) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        done = run_trtdet("compile", bundle.path, "--target", "current", check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert "no NVIDIA driver (libcuda.so.1: cannot open shared object file" in done.stderr
    else:
        pytest.skip("this machine has an NVIDIA driver")


def test_every_member_of_an_ensemble_has_its_plan(tmp_path: Path) -> None:
    folders = [write_bundle(tmp_path / name, seed=seed).path for seed, name in enumerate("ab")]
    make_ensemble("both", folders, Vote("mean-logit", (0.5, 0.5)), tmp_path / "both")
    done = run_trtdet("compile", tmp_path / "both", "--target", "sm_86")
    members = [Path(line).parent.parent.name for line in done.stdout.splitlines()]
    assert members == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    slow = write_bundle(tmp_path / "slow", layers=SLOW)
    command = [sys.executable, "-m", "trtdet", "compile", str(slow.path), "--target", "sm_86"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert " compiles " in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.split("\n") == [
        "sm_86: interrupted: it ends with this step, or at once with another Ctrl-C",
        "",
        "Interrupted.",
        "",
    ]
    assert not slow.plans.exists()
    assert not (store_folder() / "built").exists()
    assert list((store_folder() / "locks").iterdir()) == []


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow", layers=2 * SLOW)
    command = [sys.executable, "-m", "trtdet", "compile", str(slow.path), "--target", "sm_86"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert " compiles " in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert "another Ctrl-C" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (-signal.SIGINT, "")
    assert not slow.plans.exists()
    (lock,) = (store_folder() / "locks").iterdir()  # the file stays, its lock does not
    with locked(lock, on_wait=lambda: pytest.fail("somebody has it")):
        pass


def test_a_terminal_sees_the_phases(tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow", layers=SLOW)
    command = [sys.executable, "-m", "trtdet", "compile", str(slow.path), "--target", "sm_86"]
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=writer, env=environment, text=True
    ) as process:
        os.close(writer)
        shown = b""
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        stdout, _ = process.communicate(timeout=60)
    os.close(reader)
    assert process.returncode == 0
    assert Path(stdout.strip()).is_file()
    text = shown.decode()
    assert "Building engine" in text
    assert "Computing profile costs" in text  # a phase within it
    assert "sm_86: tensorrt-rtx" in text


def test_the_gpu_is_chosen_by_its_number(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `trtdet compile`, and where `trtdet score` compiles what it misses."""
    asked: list[tuple[int, int | None]] = []

    def prepare(bundle: Bundle, batch: int | None, on_progress: object, **options: int) -> Path:
        asked.append((options["device"], batch))
        return bundle.path

    monkeypatch.setattr("trtdet.build.prepare.prepare", prepare)
    arguments = ["compile", str(bundle.path), "--target", "current", "--device", "2"]
    assert CliRunner().invoke(cli, [*arguments, "--batch", "4"]).exit_code == 0
    options = make_gpu_options(
        device=1, slots=3, streams=None, no_graph=False, no_build=False, trust_plans=False
    )
    options.on_miss(bundle, 8, options.device)
    assert asked == [(2, 4), (1, 8)]
