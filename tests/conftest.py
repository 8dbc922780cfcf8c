"""Fixtures: the shared folder of golden data, drawn images, and small bundles built once a run."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click import ClickException
from click.testing import CliRunner
from PIL import Image

from trtdet.cli import cli
from trtdet.errors import TrtdetError

# A process of `pytest -n` has one core: threads of torch's own would only be in everybody's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

# Set by the test that runs the runtime's tests on other interpreters, where torch is missing.
BUNDLE_VARIABLE = "TRTDET_TEST_BUNDLE"


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees, or changes, the user's store."""
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden logits, released checkpoints and real images."""
    if not SHARED.is_dir():
        pytest.skip("the golden data (../shared beside the checkout) is not on this machine")
    return SHARED


def run_trtdet(*arguments: str | Path, check: bool = True, **options):
    """Run `trtdet` as a user does: another process. Returns the completed process, with text."""
    options = {"text": True, "capture_output": True, "timeout": 300, **options}
    command = [sys.executable, "-m", "trtdet", *map(str, arguments)]
    done = subprocess.run(command, check=False, **options)
    if check and done.returncode != 0:
        pytest.fail(f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def refusal(*arguments: str | Path) -> str:
    """What wrong input is answered with, in this process: another one would load torch again."""
    result = CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)
    assert isinstance(result.exception, (TrtdetError, ClickException, OSError)), result.output
    assert getattr(result.exception, "exit_code", 2) == 2
    return str(getattr(result.exception, "message", result.exception))


def write_rows(path: Path, names: Iterable[str], header: str = "filename") -> Path:
    """Write an input CSV of one column."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([header])
        writer.writerows([name] for name in names)
    return path


def read_rows(path: Path) -> list[list[str]]:
    """Every line of a CSV, the header too."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve drawn images of several sizes, modes and formats."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    paths = []
    for number in range(12):
        height, width = rng.integers(40, 400, 2)
        small = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        mode = ("RGB", "L", "RGB", "P")[number % 4]
        suffix = ("jpg", "png", "webp", "png")[number % 4]
        path = folder / f"picture {number}.{suffix}"
        image.convert(mode).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def small_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three drawn images of odd and even sizes, for networks that are slow at any size."""
    folder = tmp_path_factory.mktemp("small pictures")
    rng = np.random.default_rng(6)
    paths = []
    for height, width in ((61, 83), (90, 66), (64, 75)):
        small = rng.integers(0, 256, (height // 3, width // 3, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{height}x{width}.png")
        image.save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of a run of the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def synthetic_files(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], tuple[Path, Path | None]]:
    """Make a checkpoint with seeded random weights for a detector and variant.

    For a head on CLIP's tower also the tower's file, a small one.
    """
    folder = tmp_path_factory.mktemp("weights")

    @cache
    def make(model: str, variant: str) -> tuple[Path, Path | None]:
        pytest.importorskip("torch", reason="building needs torch (trtdet[build])")
        from tests.build.random_weights import write_files

        return write_files(model, variant, folder)

    return make


@pytest.fixture(scope="session")
def synthetic_weights(
    synthetic_files: Callable[[str, str], tuple[Path, Path | None]],
) -> Callable[[str, str], Path]:
    """The checkpoint alone: all that a whole network needs."""
    return lambda model, variant: synthetic_files(model, variant)[0]


@pytest.fixture(scope="session")
def built(
    run_folder: Path, synthetic_files: Callable[[str, str], tuple[Path, Path | None]]
) -> Callable[..., Path]:
    """Build a bundle with random weights, in this process; options are `BuildRequest`'s.

    One for all tests that ask for the same: they must leave it as it is.
    """

    def build(model: str, variant: str, **options) -> Path:
        pytest.importorskip("torch", reason="building needs torch (trtdet[build])")
        from trtdet.build.assemble import BuildRequest, build_bundle
        from trtdet.engine.lock import locked

        words = [model, variant, *(f"{key} {value}" for key, value in sorted(options.items()))]
        folder = run_folder / re.sub(r"[^\w-]+", "-", " ".join(["built", *words]))
        with locked(folder.with_suffix(".lock"), on_wait=lambda: None):
            if not folder.is_dir():
                weights, backbone = synthetic_files(model, variant)
                options = {"name": "built", "out": folder, **options}
                request = BuildRequest(model, (weights,), variant, backbone, **options)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("TRTDET_HOME", str(run_folder / "home of the built"))
                    build_bundle(request, on_stage=lambda _line: None)
        return folder

    return build


@pytest.fixture(scope="session")
def small_bundle(built: Callable[..., Path]) -> Path:
    """A real bundle with random weights: Tiny-LaDeDa's network, the quickest to build and run."""
    if given := os.environ.get(BUNDLE_VARIABLE):
        return Path(given)
    return built("tiny-ladeda", "wildrf", name="small")
