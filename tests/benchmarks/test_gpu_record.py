"""What a run on a GPU writes, and that whatever happens to it is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from trtdet.benchmarks.gpu_process import LOG, run_sections
from trtdet.benchmarks.gpu_record import JSON, PAGE, Record, Row
from trtdet.benchmarks.gpu_section import (
    Bench,
    MissingError,
    Request,
    Section,
    WrongError,
    run_section,
)
from trtdet.errors import BackendError

# A section whose process is at our mercy.
CHILD = """
import argparse, os, signal, sys, time
from pathlib import Path
from trtdet.benchmarks.gpu_section import MissingError, Request, Section, run_section

def dies(found):
    found["before"] = 1
    print("an illegal memory access", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def loses(found):
    raise RuntimeError("cuMemcpyDtoH failed: an illegal memory access was encountered")

def run(bench):
    bench.row("first", lambda found: found.update(value=1))
    bench.row("dies", dies)
    bench.row("exits", lambda found: os._exit(3))
    bench.row("before", lambda found: found.update(value=os.getpid()))
    bench.row("loses", loses)
    bench.row("last", lambda found: found.update(value=os.getpid()))

def sleeps(bench):
    (bench.request.out / "pid").write_text(str(os.getpid()))
    bench.row("sleeps", lambda found: time.sleep(60))

def slow(bench):
    for number in range(100):
        bench.row(f"row {number}", lambda found: time.sleep(0.1))

def starts_nothing(bench):
    os.abort()

runs = {"dying": run, "sleeping": sleeps, "aborting": starts_nothing, "slow": slow}
parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("--section")
parser.add_argument("--seconds", type=float)
given = parser.parse_args()
section = Section(given.section, given.section, 1, runs[given.section])
run_section(section, Request(given.out), given.seconds, expendable=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    return [sys.executable, str(script), str(tmp_path / "out")]


def section(name: str, run=None) -> Section:
    return Section(name, name.title(), 1, run or (lambda bench: None))


def test_every_row_is_on_disk_before_the_next_starts(tmp_path):
    seen = []

    def look(found):
        content = json.loads((tmp_path / JSON).read_text())["sections"]["some"]
        seen.append(([row["name"] for row in content["rows"]], content["running"]))

    def run(bench: Bench) -> None:
        bench.row("one", look)
        bench.row("two", look)

    run_section(section("some", run), Request(tmp_path), 60)
    assert seen == [([], "one"), (["one"], "two")]
    assert "| two | ok |  |" in (tmp_path / PAGE).read_text()


def test_a_row_keeps_what_it_found_and_says_why_it_found_no_more(tmp_path):
    def raising(error: Exception):
        def measure(found):
            found["half"] = np.float32(0.5)
            raise error

        return measure

    def run(bench: Bench) -> None:
        assert bench.row("missing", raising(MissingError("no nvcc on PATH"))) is None
        assert bench.row("wrong", raising(WrongError("3 bytes differ"))) is None
        assert bench.row("ours", raising(BackendError("the GPU is\n lost"))) is None
        assert bench.row("theirs", raising(ZeroDivisionError("by zero"))) is None
        assert bench.row("fine", lambda found: found.update(value=float("nan"))) is not None

    run_section(section("some", run), Request(tmp_path), 60)
    record = Record(tmp_path)
    rows = record.sections["some"].rows
    assert [(row.name, row.status, row.reason) for row in rows] == [
        ("missing", "skipped", "no nvcc on PATH"),
        ("wrong", "wrong", "3 bytes differ"),
        ("ours", "failed", "the GPU is lost"),
        ("theirs", "failed", "ZeroDivisionError: by zero"),
        ("fine", "ok", ""),
    ]
    assert [row.values for row in rows] == [{"half": 0.5}] * 4 + [{"value": "nan"}]
    assert record.wrong == ["some: wrong"]
    assert record.sections["some"].outcome == "1 ok, 1 wrong, 2 failed, 1 skipped"


def test_a_section_that_cannot_run_says_why(tmp_path):
    def run(bench: Bench) -> None:
        raise MissingError("no GPU | here")

    found = run_section(section("some", run), Request(tmp_path), 60)
    assert (found.outcome, found.reason) == ("did not run", "no GPU | here")
    assert "**did not run**: no GPU \\| here" in (tmp_path / PAGE).read_text()


def test_after_its_time_no_row_is_started(tmp_path):
    def run(bench: Bench) -> None:
        bench.row("one", lambda found: time.sleep(0.05))
        bench.row("two", lambda found: pytest.fail("it was started"))

    found = run_section(section("some", run), Request(tmp_path), 0.03)
    assert [(row.name, row.status) for row in found.rows] == [("one", "ok"), ("two", "skipped")]
    assert "--minutes" in found.rows[1].reason


def test_a_process_that_dies_costs_a_row(tmp_path, command):
    run_sections([section("dying")], tmp_path / "out", command, 60)
    found = Record(tmp_path / "out").sections["dying"]
    assert [(row.name, row.status) for row in found.rows] == [
        ("first", "ok"), ("dies", "failed"), ("exits", "failed"),
        ("before", "ok"), ("loses", "failed"), ("last", "ok"),
    ]  # fmt: skip
    assert found.rows[1].reason == "its process died (SIGSEGV): an illegal memory access"
    assert found.rows[2].reason == "its process died (exit code 3)"
    assert found.rows[4].reason.endswith("an illegal memory access was encountered")
    assert found.rows[5].values != found.rows[3].values, "a process went on with a lost GPU"
    assert (found.running, found.reason) == ("", "")


def test_a_section_that_hangs_or_cannot_start_leaves_the_others_alone(
    tmp_path, command, monkeypatch
):
    monkeypatch.setattr("trtdet.benchmarks.gpu_process._LEAST_S", 0.5)
    monkeypatch.setattr("trtdet.benchmarks.gpu_process._OVERTIME_S", 1.5)
    names = ("sleeping", "aborting", "dying")
    run_sections([section(name) for name in names], tmp_path / "out", command, 9)
    sections = Record(tmp_path / "out").sections
    assert list(sections) == list(names)
    assert sections["sleeping"].rows[0].reason.endswith("its time was over")
    assert sections["aborting"].reason.startswith("its process died (SIGABRT)")
    assert sections["dying"].find("first").status == "ok"
    assert (tmp_path / "out" / LOG).read_bytes().count(b"\n== ") >= 3


def start_run(out: Path, command: list[str], sections: tuple[str, ...]) -> subprocess.Popen:
    """A run in a process of its own, once its last section is at work."""
    program = (
        "import sys; from pathlib import Path\n"
        "from trtdet.benchmarks.gpu_process import run_sections\n"
        "from trtdet.benchmarks.gpu_section import Section\n"
        f"sections = [Section(n, n, 1, print) for n in {sections!r}]\n"
        f"run_sections(sections, Path({str(out)!r}), {command!r}, 100)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if json.loads((out / JSON).read_text())["sections"][sections[-1]]["running"]:
                return run
        except (FileNotFoundError, KeyError):
            pass
        time.sleep(0.05)
    raise AssertionError("it did not get there")


def test_a_killed_run_keeps_what_it_has_and_ends_its_child(tmp_path, command):
    run = start_run(tmp_path / "out", command, ("dying", "sleeping"))
    run.send_signal(signal.SIGINT)
    assert run.wait(20) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out" / "pid").read_text()), 0)
    record = Record(tmp_path / "out")
    assert record.sections["dying"].find("last").status == "ok"
    assert record.sections["sleeping"].running == "sleeps"


def test_a_run_that_could_not_say_goodbye_is_noticed(tmp_path, command):
    run = start_run(tmp_path / "out", command, ("slow",))
    run.kill()
    run.wait(20)
    time.sleep(0.6)
    rows = len(Record(tmp_path / "out").sections["slow"].rows)
    time.sleep(0.5)
    assert len(Record(tmp_path / "out").sections["slow"].rows) == rows < 100


def test_sections_that_are_not_run_again_stay(tmp_path):
    record = Record(tmp_path)
    record.begin("old", "Old").rows.append(Row("kept", "ok", values={"value": 1}))
    record.save()
    run_sections([], tmp_path, [], 1)
    (tmp_path / "gpu.md").unlink()
    run_section(section("new"), Request(tmp_path), 1)
    assert Record(tmp_path).sections["old"].find("kept").values == {"value": 1}
    assert "kept" in (tmp_path / PAGE).read_text()


def test_a_damaged_record_is_started_anew(tmp_path):
    (tmp_path / JSON).write_text("{")
    assert Record(tmp_path).sections == {}
