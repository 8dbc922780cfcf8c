"""`trtdet bench` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.conftest import run_trtdet


def test_the_starter_is_measured(tmp_path):
    page = tmp_path / "bench.html"
    done = run_trtdet(
        "bench", "starter", "--seconds", "2", "--batches", "1,2", "--streams", "1",
        "--threads", "1", "--json", "-", "--html", page,
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record["engine"] == "starter"
    assert {each["batch"] for each in record["network"]} <= {1, 2}
    assert record["bottleneck"]["stage"] in ("decode", "geometry", "compute")
    assert page.read_text().startswith("<!doctype html>")
    assert "network, batch 1, 1 stream" in done.stderr


def test_images_of_ones_own(small_bundle, pictures):
    done = run_trtdet(
        "bench", small_bundle, "--seconds", "1", "--batches", "1", "--images", pictures[0].parent
    )
    assert done.stdout.startswith("# small (fp32) on openvino ")
    assert "12 images of " in done.stdout


@pytest.mark.parametrize("wrong", ["0", "1,,2", "a", "1;2"])
def test_a_wrong_list_is_refused(wrong):
    done = run_trtdet("bench", "starter", "--batches", wrong, check=False)
    assert done.returncode == 2
    assert "is no list of whole numbers" in done.stderr


def test_a_bundle_is_not_taken_for_the_file_of_the_numbers():
    done = run_trtdet("bench", "--json", "starter", check=False)
    assert done.returncode == 2
    assert "starter is an engine, where the name of a file is wanted" in done.stderr


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    page = tmp_path / "missing" / "bench.html"
    done = run_trtdet("bench", "starter", "--html", page, check=False)
    assert done.returncode == 2
    assert done.stderr == f"Error: cannot write {page}: No such file or directory\n"
