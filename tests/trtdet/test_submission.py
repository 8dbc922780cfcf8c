"""A submission runs where nothing of ours is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import read_rows, run_trtdet, write_rows


@pytest.fixture(scope="module")
def submission(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submission") / "cup"
    done = run_trtdet("submission", folder, "--engine", small_bundle)
    assert done.stdout == f"{folder}\n"
    return folder


@pytest.fixture(scope="module")
def empty_python(submission: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the submission's requirements alone."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    command = [python, "-m", "pip", "install", "--quiet", "-r", submission / "requirements.txt"]
    subprocess.run(command, check=True)
    return python


def test_main_gives_every_image_a_number(
    submission: Path, empty_python: Path, small_bundle: Path, pictures: list[Path], tmp_path: Path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    names = [*map(str, pictures), "broken.jpg", "missing.png"]
    table = write_rows(tmp_path / "input.csv", names)
    command = [empty_python, submission / "main.py", "input.csv", "output.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "output.csv")
    assert rows[0] == ["filename", "logit"]
    assert [name for name, _ in rows[1:]] == names
    assert [logit for _, logit in rows[-2:]] == ["0.0", "0.0"]

    run_trtdet("score", "--engine", small_bundle, table, tmp_path / "ours.csv", check=False)
    assert rows[1:-2] == read_rows(tmp_path / "ours.csv")[1:-2]
    without = [empty_python, "-c", "import torch"]
    assert subprocess.run(without, capture_output=True).returncode != 0


def test_main_says_how_it_is_used(submission: Path):
    done = subprocess.run(
        [sys.executable, submission / "main.py", "input.csv"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "usage: python main.py input.csv output.csv" in done.stderr


def test_what_is_in_it(submission: Path):
    pins = (submission / "requirements.txt").read_text().split()
    assert all(pin.count("==") == 1 for pin in pins)
    assert any(pin.startswith("openvino==") for pin in pins)
    assert 'ENTRYPOINT ["python", "main.py"]' in (submission / "Dockerfile").read_text()
    assert not list(submission.rglob("*.plan"))


def test_a_folder_with_something_in_it_is_left_alone(small_bundle: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    done = run_trtdet("submission", tmp_path, "--engine", small_bundle, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
