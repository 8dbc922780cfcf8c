"""`trtdet score` over files that were made to hurt: one row each, and the good ones unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import read_rows, write_rows
from tests.hostile import write_corpus
from tests.hostile_bombs import scan_bomb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are sandboxed on Linux")

MIB = 1 << 20

# Runs a command, and prints the memory of its largest process. A process of its own, because what
# is started counts as large as what started it was.
_MEASURE = """if 1:
    import resource, subprocess, sys
    code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    sys.exit(code)
"""


class Run(NamedTuple):
    code: int
    words: str  # on stderr
    seconds: float
    peak_bytes: int  # of the largest process
    rows: list[list[str]]
    reasons: dict[str, str]


def command(table: Path, output: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "trtdet", "score", *options, str(table), str(output)]


def score(folder: Path, names: list[Path], *options: str) -> Run:
    """Score with the starter, in a process of its own."""
    table, output = write_rows(folder / "in.csv", map(str, names)), folder / "out.csv"
    measured = [sys.executable, "-c", _MEASURE, *command(table, output, *options)]
    start = time.monotonic()
    done = subprocess.run(measured, capture_output=True, text=True, check=False, timeout=550)
    seconds = time.monotonic() - start
    errors = Path(f"{output}.errors.csv")
    reasons = dict(read_rows(errors)[1:]) if errors.exists() else {}
    rows = read_rows(output)[1:] if output.exists() else []
    return Run(done.returncode, done.stderr, seconds, int(done.stdout), rows, reasons)


def only_ours(words: str) -> bool:
    """Whether stderr has nothing but what this project says, and no traceback."""
    ours = ("no engine", "backend ", "a file took", "the reasons", "what was", "Interrupted")
    return all(line.startswith(ours) or " rows in " in line for line in words.splitlines())


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.full)])
def test_hostile_files_cost_a_row_each(tmp_path: Path, pictures: list[Path], every: int):
    (tmp_path / "corpus").mkdir()
    hostile = write_corpus(tmp_path / "corpus", every)
    names = []
    for number, path in enumerate(hostile):
        names += [path, pictures[number // 25 % len(pictures)]] if number % 25 == 0 else [path]
    # Small enough to bound the memory, large enough that a hundred lying headers are believed.
    options = ["--max-pixels", "4000000", "--max-seconds", "30", "--threads", "2"]
    alone = dict(score(tmp_path, pictures, *options).rows)
    plain = score(tmp_path, names, *options)
    isolated = score(tmp_path, names, *options, "--isolate")
    for run in (plain, isolated):
        assert run.code == 3
        assert only_ours(run.words), run.words
        assert [name for name, _ in run.rows] == list(map(str, names))
        good = {name: logit for name, logit in run.rows if name in alone}
        assert good == alone
        assert {name for name, logit in run.rows if not logit} == {*run.reasons}
        assert all(reason and "\n" not in reason for reason in run.reasons.values())
        # Both threads' pictures at 25 bytes a pixel, and what a run takes without them.
        assert run.peak_bytes < 700 * MIB
        assert run.seconds < 30 + len(names) / 20
    assert isolated.rows == plain.rows
    assert isolated.reasons == plain.reasons
    assert len(plain.reasons) > 0.6 * len(hostile)


@pytest.mark.parametrize("options", [[], ["--isolate"]], ids=" ".join)
def test_bombs_of_scans_cost_their_rows_and_their_seconds(
    tmp_path: Path, pictures: list[Path], options: list[str]
):
    """Minutes of work in libjpeg each: the threads are replaced, the processes killed."""
    (tmp_path / "bomb.jpg").write_bytes(scan_bomb())
    bomb = tmp_path / "bomb.jpg"
    alone = score(tmp_path, pictures)
    names = [bomb, *pictures, bomb, bomb, bomb, *pictures]
    run = score(tmp_path, names, "--max-seconds", "2", "--threads", "2", *options)
    assert run.code == 3
    assert only_ours(run.words), run.words
    assert ("a process takes its place" in run.words) == (not options)
    assert [row for row in run.rows if row[0] != str(bomb)] == alone.rows * 2
    assert run.reasons == {
        str(bomb): "took more than 2 s to read and decode; raise it with --max-seconds"
    }
    assert run.seconds < alone.seconds + 30
    assert run.peak_bytes < 600 * MIB


@pytest.mark.parametrize("options", [[], ["--isolate"]], ids=" ".join)
def test_ctrl_c_twice_waits_for_no_decoder(tmp_path: Path, options: list[str]):
    (tmp_path / "bomb.jpg").write_bytes(scan_bomb())
    table = write_rows(tmp_path / "in.csv", ["bomb.jpg"] * 9)
    process = subprocess.Popen(
        command(table, tmp_path / "out.csv", *options),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "out.csv.journal").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # both are being decoded
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, words = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert "Traceback" not in words
    assert "go on with: trtdet score --resume" in words


def test_large_files_are_refused_unread(tmp_path: Path, pictures: list[Path]):
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    run = score(tmp_path, [tmp_path / "large.jpg", pictures[0]], "--max-bytes", "500000")
    assert list(run.reasons.values()) == [
        "the file has 1,099,511,627,776 bytes, over the limit of 500,000; raise it with --max-bytes"
    ]
    assert run.rows[1][1]
    assert run.peak_bytes < 400 * MIB


@pytest.mark.full
@pytest.mark.parametrize("options", [[], ["--isolate"]], ids=" ".join)
def test_a_gibibyte_of_zeros_takes_a_gibibyte(tmp_path: Path, options: list[str]):
    with (tmp_path / "zeros.jpg").open("wb") as file:
        file.truncate(1 << 30)
    run = score(tmp_path, [tmp_path / "zeros.jpg"], *options)
    assert [*run.reasons.values()] == ["not an image that Pillow can read"]
    assert run.seconds < 20
    assert run.peak_bytes < 1600 * MIB
