"""Every exit code that the documentation names, by the process that gives it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_trtdet, write_rows
from trtdet.engine.bundle import PROBES, Probes, load_probes, save_probes
from trtdet.engine.digest import sha256_file
from trtdet.engine.store import RECORD


@pytest.fixture
def table(pictures, tmp_path) -> Path:
    return write_rows(tmp_path / "in.csv", map(str, pictures))


@pytest.fixture
def drifting(small_bundle, tmp_path) -> Path:
    """A bundle whose probes are not what its network gives."""
    folder = shutil.copytree(small_bundle, tmp_path / "drifting")
    probes = load_probes(folder)
    save_probes(Probes(probes.images, probes.logits + 1), folder)
    record = json.loads((folder / RECORD).read_text())
    record["hashes"][PROBES] = sha256_file(folder / PROBES)
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def test_the_documented_codes_are_those_that_are_tested_here():
    page = (REPOSITORY / "docs/long-jobs.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    tested = re.findall(r"returncode == (\d+)", Path(__file__).read_text(encoding="utf-8"))
    assert sorted(documented, key=int) == sorted(set(tested), key=int)


def test_0_every_row_has_its_score(small_bundle, table, tmp_path):
    done = run_trtdet("score", "--engine", small_bundle, table, tmp_path / "out.csv", check=False)
    assert done.returncode == 0


def test_1_the_reader_went_away(small_bundle, pictures, tmp_path):
    table = write_rows(tmp_path / "long.csv", [*map(str, pictures)] * 400)
    command = [sys.executable, "-m", "trtdet", "score", "--engine", str(small_bundle)]
    process = subprocess.Popen(
        [*command, str(table), "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(60)
    assert process.returncode == 1


def test_2_wrong_input(small_bundle, tmp_path):
    table = write_rows(tmp_path / "in.csv", [], header="path")
    done = run_trtdet("score", "--engine", small_bundle, table, tmp_path / "out.csv", check=False)
    assert done.returncode == 2


def test_3_some_rows_have_no_score(small_bundle, tmp_path):
    table = write_rows(tmp_path / "in.csv", ["missing.jpg"])
    done = run_trtdet("score", "--engine", small_bundle, table, tmp_path / "out.csv", check=False)
    assert done.returncode == 3


def test_4_the_backend_cannot_run(small_bundle, table, tmp_path):
    arguments = ("score", "--engine", small_bundle, "--backend", "tensorrt", table)
    done = run_trtdet(
        *arguments,
        tmp_path / "out.csv",
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 4
    assert not (tmp_path / "out.csv").exists()


def test_5_the_engine_does_not_match(drifting, table, tmp_path):
    done = run_trtdet("score", "--engine", drifting, table, tmp_path / "out.csv", check=False)
    assert done.returncode == 5
    assert not (tmp_path / "out.csv").exists()


def test_6_a_verification_failed(drifting):
    done = run_trtdet("verify", drifting, check=False)
    assert done.returncode == 6


def test_130_interrupted(small_bundle, pictures, tmp_path):
    table = write_rows(tmp_path / "long.csv", [*map(str, pictures)] * 2000)
    command = [sys.executable, "-m", "trtdet", "score", "--engine", str(small_bundle)]
    process = subprocess.Popen(
        [*command, str(table), str(tmp_path / "out.csv")], stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "out.csv.journal"
    while not (journal.exists() and journal.stat().st_size > 2000):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: trtdet score --resume" in said
