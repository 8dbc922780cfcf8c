"""The command line as a user meets it: every case is a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.cli import COMMANDS, cli
from trtdet.engine.built import write_code
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, record_judged, write_plan
from trtdet.engine.store import store_folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_ends_in_an_example(name: str):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"trtdet {name}" in result.output.split("Example:")[1]


def test_the_contract(small_bundle, pictures, tmp_path):
    table = write_rows(pictures[0].parent / "contract.csv", [path.name for path in pictures])
    output = tmp_path / "out.csv"
    done = run_trtdet("score", "--engine", small_bundle, table, output)
    assert done.stdout == ""
    rows = read_rows(output)
    assert rows[0] == ["filename", "logit"]
    assert [name for name, _ in rows[1:]] == [path.name for path in pictures]
    assert all(float(logit) == float(logit) for _, logit in rows[1:])
    assert not (tmp_path / "out.csv.errors.csv").exists()
    summary = done.stderr.splitlines()[-1]
    assert "12 rows" in summary
    assert "0 failed; engine small (fp32) on openvino" in summary
    assert "backend tensorrt is not used: " in done.stderr


def test_standard_streams(small_bundle, pictures, tmp_path):
    names = [str(path) for path in pictures[:3]]
    text = "filename\n" + "\n".join(names) + "\nmissing.jpg\n"
    done = run_trtdet(
        "score", "--engine", small_bundle, "-", "-", input=text, cwd=tmp_path, check=False
    )
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[0] == "filename,logit"
    assert [line.split(",")[0] for line in lines[1:]] == [*names, "missing.jpg"]
    assert lines[-1] == "missing.jpg,"
    assert "missing.jpg,file not found" in done.stderr


def test_failed_rows_keep_their_place_and_the_exit_code_says_so(small_bundle, pictures, tmp_path):
    names = [str(pictures[0]), "missing.jpg", str(pictures[1])]
    table = write_rows(tmp_path / "in.csv", names)
    output = tmp_path / "out.csv"
    done = run_trtdet("score", "--engine", small_bundle, table, output, check=False)
    assert done.returncode == 3
    assert [row[0] for row in read_rows(output)[1:]] == names
    assert [row[1] == "" for row in read_rows(output)[1:]] == [False, True, False]
    assert read_rows(tmp_path / "out.csv.errors.csv") == [
        ["filename", "reason"],
        ["missing.jpg", "file not found"],
    ]
    done = run_trtdet(
        "score", "--engine", small_bundle, "--failed-logit", "0", table, output, check=False
    )
    assert done.returncode == 3
    assert read_rows(output)[2] == ["missing.jpg", "0.0"]


def wrong_input_cases(folder: Path, bundle: Path) -> dict[str, tuple[list[str], str]]:
    """Arguments after `score`, and what the one line on stderr must say."""
    table = write_rows(folder / "in.csv", ["a.jpg"])
    other = write_rows(folder / "other.csv", ["a.jpg"], header="path")
    out = str(folder / "out.csv")
    engine = ["--engine", str(bundle)]
    return {
        "no column": ([*engine, str(other), out], "no column 'filename'"),
        "no table": ([*engine, str(folder / "no.csv"), out], "No such file"),
        "no folder": ([*engine, str(table), str(folder / "no/out.csv")], "does not exist"),
        "same file": ([*engine, str(table), str(table)], "overwrite the input"),
        "output is a folder": ([*engine, str(table), str(folder)], "is a folder"),
        "no engine": (["--engine", "nobody", str(table), out], "trtdet build"),
        "not finite": ([*engine, "--failed-logit", "nan", str(table), out], "no finite number"),
        "backend": ([*engine, "--backend", "abacus", str(table), out], "openvino"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no column",
        "no table",
        "no folder",
        "same file",
        "output is a folder",
        "no engine",
        "not finite",
        "backend",
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(small_bundle, tmp_path, case):
    arguments, message = wrong_input_cases(tmp_path, small_bundle)[case]
    before = sorted(tmp_path.iterdir())
    done = run_trtdet("score", *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("backend ")]
    usage = [line for line in lines if line.startswith(("Usage:", "Try '"))]  # click's own
    assert [line[:7] for line in lines if line and line not in usage] == ["Error: "]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_a_journal_and_exits_130(small_bundle, pictures, tmp_path, sent):
    table = write_rows(tmp_path / "in.csv", (str(pictures[0]) for _ in range(300_000)))
    command = [sys.executable, "-m", "trtdet", "score", "--engine", str(small_bundle)]
    process = subprocess.Popen(
        [*command, str(table), str(tmp_path / "out.csv")], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.csv.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.glob(".out.csv.*")), "the run never began"
    time.sleep(0.3)
    process.send_signal(sent)
    _out, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv.journal"]


def test_inspect_shows_the_record(small_bundle):
    record = json.loads(run_trtdet("inspect", "--json", small_bundle).stdout)
    assert record == json.loads((small_bundle / "bundle.json").read_text())
    shown = run_trtdet("inspect", small_bundle).stdout
    hashes = record["hashes"].values()
    for text in ("tiny-ladeda", "fp32", "stretch to 256x256, Pillow bilinear", *hashes):
        assert text in shown


def test_doctor_says_what_is_here_and_why_the_rest_is_not():
    shown = run_trtdet("doctor").stdout
    assert re.search(r"^openvino +ready", shown, re.MULTILINE)
    for name in ("cpu", "features", "memory", "tensorrt", "  NVIDIA driver", "  pycuda", "  GPU",
                 "  TensorRT", "compiling", "  kernels", "building", "store"):  # fmt: skip
        assert any(line.startswith(name) for line in shown.splitlines()), name


def test_doctor_lists_the_plans_of_the_store():
    key = PlanKey("tensorrt", "10.3.0", "sm_87", "a" * 64, 8, ())
    path = write_plan(store_folder() / "plans" / key.graph_sha256, Plan(key, b"plan"))
    record_judged(path, np.zeros((1, 1), np.float32), "passed on Orin")
    write_code(store_folder() / "kernels/sm_87-0123.cubin", b"cubin")
    shown = run_trtdet("doctor").stdout
    assert f"the store's: {path.name}, passed on Orin\n" in shown
    assert "the store's: sm_87-0123.cubin\n" in shown


def test_a_terminal_sees_a_bar_and_a_file_does_not(small_bundle, pictures, tmp_path):
    names = [str(path) for path in pictures] * 40 + ["missing.jpg"]
    table = write_rows(tmp_path / "in.csv", names)
    arguments = ["score", "--engine", str(small_bundle), str(table), str(tmp_path / "out.csv")]
    terminal, its_end = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "trtdet", *arguments], stderr=its_end)
    os.close(its_end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux reports the end of a pseudo-terminal as an error
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait(timeout=60) == 3
    assert b"/481" in shown
    assert b"rows/s" in shown
    assert b"failed" in shown
    done = run_trtdet(*arguments, check=False)
    assert "\x1b" not in done.stderr
    assert "/481" not in done.stderr


def test_nothing_is_written_to_the_home_folder_and_none_is_needed(small_bundle, pictures, tmp_path):
    table = write_rows(tmp_path / "in.csv", map(str, pictures[:1]))
    home = tmp_path / "home"
    home.mkdir()
    arguments = ("score", "--engine", small_bundle, table, tmp_path / "out.csv")
    run_trtdet(*arguments, env={**os.environ, "HOME": str(home)})
    assert list(home.rglob("*")) == []
    run_trtdet(*arguments, env={**os.environ, "HOME": "/nonexistent/home"})


@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&-"])
def test_a_closed_standard_stream_is_no_obstacle(small_bundle, pictures, tmp_path, closed):
    table = write_rows(tmp_path / "in.csv", map(str, pictures[:2]))
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "trtdet", "score", "--engine", small_bundle, table, output]
    line = shlex.join(map(str, command))
    assert subprocess.run(["sh", "-c", f"{line} {closed}"], check=False).returncode == 0
    assert len(read_rows(output)) == 3


def test_a_full_disk_is_one_clear_line(small_bundle, pictures, tmp_path):
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    with Path("/dev/full").open("w") as full:
        done = run_trtdet(
            "score", "--engine", small_bundle, table, "-",
            check=False, capture_output=False, stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
