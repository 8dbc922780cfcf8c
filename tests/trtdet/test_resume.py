"""A run that was interrupted anywhere, gone on with, ends with the bytes of one that was not."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import read_rows, run_trtdet, write_rows


@pytest.fixture(scope="module")
def job(small_bundle, pictures, tmp_path_factory):
    """A long table with bad rows, and what it comes to."""
    names = [*map(str, pictures), "missing.jpg", "with,comma.png", ""] * 60
    return whole_job(small_bundle, names, tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def job_of_5000(small_bundle, shared, tmp_path_factory):
    """Real files, and a bad row after every hundred."""
    files = sorted(map(str, (shared / "cup").glob("*.jpg")))
    names = [name for each in range(0, 5000, 100) for name in (*files[each : each + 100], "no.jpg")]
    return whole_job(small_bundle, names, tmp_path_factory.mktemp("job"))


def whole_job(bundle, names, folder):
    """The command without its output, and the bytes of an uninterrupted run."""
    table = write_rows(folder / "in.csv", names)
    arguments = ("score", "--engine", bundle, "--batch", "2", table)
    assert run_trtdet(*arguments, folder / "whole.csv", check=False).returncode == 3
    whole = [(folder / name).read_bytes() for name in ("whole.csv", "whole.csv.errors.csv")]
    assert len(read_rows(folder / "whole.csv")) == len(names) + 1
    return arguments, whole


def start(arguments, *more):
    command = [sys.executable, "-m", "trtdet", *map(str, (*arguments, *more))]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_rows(path, process):
    """Until a first record is in the journal."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") and path.stat().st_size > 800:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_was_begun_and_says_how_to_go_on(job, tmp_path, number):
    arguments, whole = job
    out = tmp_path / "out.csv"
    process = start(arguments, out)
    wait_for_rows(tmp_path / "out.csv.journal", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "what was begun is finished" in said
    assert f"go on with: trtdet score --resume --engine {arguments[2]}" in said
    assert "Traceback" not in said
    assert not out.exists()
    done = run_trtdet(*arguments, "--resume", out, check=False)
    assert done.returncode == 3
    assert re.search(r"; \d+ rows were there before", done.stderr)
    assert [out.read_bytes(), (tmp_path / "out.csv.errors.csv").read_bytes()] == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.errors.csv"]


def killed_and_resumed(job, folder, kills, seed):
    """Kill a run at random moments, and go on each time, until it is through."""
    arguments, whole = job
    rng, out = random.Random(seed), folder / "out.csv"
    killed, resume = 0, ()
    while killed < kills:
        process = start(arguments, *resume, out)
        time.sleep(rng.uniform(0.3, 2.0))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if (folder / "out.csv.journal").exists():
            resume = ("--resume",)
        elif out.exists():  # it was through before
            out.unlink()
            (folder / "out.csv.errors.csv").unlink()
            resume = ()
    assert run_trtdet(*arguments, *resume, out, check=False).returncode == 3
    assert [out.read_bytes(), (folder / "out.csv.errors.csv").read_bytes()] == whole
    assert sorted(path.name for path in folder.iterdir()) == ["out.csv", "out.csv.errors.csv"]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(job, tmp_path):
    killed_and_resumed(job, tmp_path, kills=4, seed=1)


@pytest.mark.full
def test_killed_two_hundred_times(job_of_5000, tmp_path):
    for seed in range(25):
        folder = tmp_path / str(seed)
        folder.mkdir()
        killed_and_resumed(job_of_5000, folder, kills=8, seed=seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--batch", "3"), r"batch (2 then, 3 now)"),
        (("--raw",), "raw (False then, True now)"),
        (("--failed-logit", "0"), "failed_logit (None then, 0.0 now)"),
        ("table", "input ("),
    ],
)
def test_another_job_is_refused(job, small_bundle, tmp_path, change, message):
    arguments, _ = job
    out = tmp_path / "out.csv"
    process = start(arguments, out)
    wait_for_rows(tmp_path / "out.csv.journal", process)
    process.kill()
    process.communicate()
    if change == "table":
        arguments = (*arguments[:-1], write_rows(tmp_path / "other.csv", ["a.png"]))
        change = ()
    done = run_trtdet(*arguments, *change, "--resume", out, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert (tmp_path / "out.csv.journal").exists()


def test_without_a_journal_there_is_nothing_to_go_on_with(job, tmp_path):
    arguments, _ = job
    done = run_trtdet(*arguments, "--resume", tmp_path / "out.csv", check=False)
    assert done.returncode == 2
    assert "leave --resume out" in done.stderr
    done = run_trtdet(*arguments, "--resume", "-", check=False)
    assert done.returncode == 2
    assert "standard output has no journal" in done.stderr


def test_a_new_run_keeps_the_old_journal_aside(job, pictures, small_bundle, tmp_path):
    out = tmp_path / "out.csv"
    journal = tmp_path / "out.csv.journal"
    journal.write_bytes(json.dumps({"journal": 1, "job": {}}).encode() + b"\n")
    table = write_rows(tmp_path / "in.csv", map(str, pictures[:2]))
    run_trtdet("score", "--engine", small_bundle, table, out)
    assert not journal.exists()
    assert (tmp_path / "out.csv.journal.old").exists()
    assert len(read_rows(out)) == 3
