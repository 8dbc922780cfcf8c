"""`trtdet score --deadline` and `--json`: the output is there in time, and says what it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import read_rows, run_trtdet, write_rows


@pytest.fixture(scope="module")
def job(small_bundle, pictures, tmp_path_factory):
    """More rows than a few seconds are enough for, a bad one in each dozen."""
    folder = tmp_path_factory.mktemp("job")
    names = [*map(str, pictures), "missing.jpg"] * 8000
    table = write_rows(folder / "in.csv", names)
    return ("score", "--engine", small_bundle, "--json", table), names


def test_the_output_is_there_in_time_and_the_rest_can_be_scored_later(job, tmp_path):
    arguments, names = job
    out, started = tmp_path / "out.csv", time.monotonic()
    done = run_trtdet(*arguments, "--deadline", "6s", out, check=False)
    assert time.monotonic() - started < 12  # of a job of minutes; the interpreter starts, too
    assert done.returncode == 3, done.stderr
    said = json.loads(done.stdout)
    header, *rows = read_rows(out)
    assert (header, [row[0] for row in rows]) == (["filename", "logit"], names)
    assert said["rows"] == len(names) == said["scored"] + said["failed"] + said["not_reached"]
    assert said["scored"] == sum(row[1] != "" for row in rows) > 20
    assert said["not_reached"] > 0
    reasons = [reason for _, reason in read_rows(tmp_path / "out.csv.errors.csv")[1:]]
    assert reasons.count("not reached before the deadline") == said["not_reached"]
    assert reasons.count("file not found") == said["failed"]
    assert (said["exit_code"], said["left_out"], said["resumed"]) == (3, [], 0)
    assert said["resume"].startswith("trtdet score --resume --engine")

    # Another few seconds go on from there.
    again = run_trtdet(*arguments, "--deadline", "6s", "--resume", out, check=False)
    more = json.loads(again.stdout)
    assert more["resumed"] == said["scored"] + said["failed"]
    assert more["scored"] > said["scored"]
    assert [row[0] for row in read_rows(out)[1:]] == names
    assert read_rows(out)[: more["resumed"] + 1] == [header, *rows][: more["resumed"] + 1]


def test_rows_that_are_not_reached_carry_the_failed_logit(job, tmp_path):
    arguments, names = job
    out = tmp_path / "out.csv"
    done = run_trtdet(*arguments, "--deadline", "0h0m4s", "--failed-logit", "-1", out, check=False)
    assert done.returncode == 3, done.stderr
    _, *rows = read_rows(out)
    assert len(rows) == len(names)
    assert rows[-1] == [names[-1], "-1.0"]


def test_what_has_the_time_is_whole(job, small_bundle, pictures, tmp_path):
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    plain = run_trtdet("score", "--engine", small_bundle, table, tmp_path / "plain.csv")
    done = run_trtdet(
        "score", "--engine", small_bundle, "--json", "--deadline", "5m", table, tmp_path / "out.csv"
    )
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    said = json.loads(done.stdout)
    assert (said["scored"], said["not_reached"], said["exit_code"]) == (12, 0, 0)
    assert (said["resume"], said["errors"]) == (None, None)
    assert plain.stdout == ""
    assert not (tmp_path / "out.csv.journal").exists()


@pytest.mark.parametrize(
    ("where", "scored"),
    [
        ("trtdet.engine.engine.open_session", 0),  # before the first row
        ("trtdet.engine.openvino.OpenVinoSession.start", None),  # after some
    ],
)
def test_an_engine_that_hangs_costs_its_rows_and_not_the_file(
    small_bundle, pictures, tmp_path, where, scored
):
    module, _, name = where.rpartition(".")
    hang = f"""
import importlib, sys, time
from trtdet.cli import main
try:
    owner = importlib.import_module({module!r})
except ModuleNotFoundError:
    path, _, cls = {module!r}.rpartition(".")
    owner = getattr(importlib.import_module(path), cls)
real, calls = getattr(owner, {name!r}), []
def hanging(*args, **options):
    calls.append(1)
    if {scored!r} == 0:
        time.sleep(60)
    if len(calls) > 20:
        return None  # never done
    return real(*args, **options)
setattr(owner, {name!r}, hanging)
main()
"""
    names = [*map(str, pictures)] * 20
    table, out = write_rows(tmp_path / "in.csv", names), tmp_path / "out.csv"
    arguments = ("score", "--engine", small_bundle, "--json", "--deadline", "5s", "--batch", "1")
    command = [sys.executable, "-c", hang, *map(str, (*arguments, table, out))]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert time.monotonic() - started < 12
    assert done.returncode == 3, done.stderr
    said, (_, *rows) = json.loads(done.stdout), read_rows(out)
    assert [row[0] for row in rows] == names
    found = sum(row[1] != "" for row in rows)
    assert said["scored"] == found
    assert found == scored if scored == 0 else 5 < found < len(names)
    assert "Traceback" not in done.stderr
    kept = {
        "in.csv",
        "out.csv",
        "out.csv.errors.csv",
        *([] if scored == 0 else ["out.csv.journal"]),
    }
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_json_of_a_run_that_was_stopped(job, tmp_path):
    arguments, names = job
    command = [sys.executable, "-m", "trtdet", *map(str, (*arguments, tmp_path / "out.csv"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out.csv.journal"
    while not (journal.exists() and journal.stat().st_size > 2000):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    said = json.loads(stdout)
    assert process.returncode == said["exit_code"] == 130
    assert 0 < said["scored"] < len(names)
    assert said["resume"].startswith("trtdet score --resume")


@pytest.mark.parametrize("text", ["0", "soon", "-5", "5d", "m", ""])
def test_what_is_no_duration_is_refused(job, tmp_path, text):
    arguments, _ = job
    done = run_trtdet(*arguments, "--deadline", text, tmp_path / "out.csv", check=False)
    assert done.returncode == 2
    assert "is no duration: write 55m, 1h30m or 90s" in done.stderr


def test_standard_output_takes_the_rows_alone(job):
    arguments, _ = job
    for option in (("--deadline", "5s"), ()):
        chosen = [each for each in arguments if each != "--json" or not option]
        done = run_trtdet(*chosen, *option, "-", check=False)
        assert done.returncode == 2
        assert "standard output is taken by the rows" in done.stderr
