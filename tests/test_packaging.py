"""The wheel: it owns one name, works from any folder, and runs on the oldest and newest Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import BUNDLE_VARIABLE, REPOSITORY, read_rows, run_trtdet, write_rows

SUPPORTED = [(3, minor) for minor in (10, 11, 12, 13)]


def sh(*command: str | Path, **options) -> str:
    """Run a command that must succeed; its standard output."""
    done = subprocess.run(
        list(map(str, command)), check=False, text=True, capture_output=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by pip from a copy of the sources (the checkout stays clean)."""
    source = tmp_path_factory.mktemp("source") / "trtdet"
    listed = sh("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY)
    for name in listed.splitlines():
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    sh(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


def new_environment(python: str | Path, folder: Path) -> Path:
    """An empty virtual environment; its interpreter."""
    sh(python, "-m", "venv", folder)
    return folder / "bin/python"


def other_interpreters() -> dict[tuple[int, int], str]:
    """The interpreters of supported versions on PATH and in pyenv's folder."""
    found: dict[tuple[int, int], str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python3.{minor}") for _, minor in SUPPORTED]
    candidates += [str(path) for path in sorted(pyenv.glob("3.*/bin/python"))]
    for candidate in filter(None, candidates):
        program = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
        done = subprocess.run(
            [candidate, "-c", program], check=False, text=True, capture_output=True
        )
        if done.returncode == 0:
            version = tuple(map(int, done.stdout.split()))
            if version in SUPPORTED:
                found.setdefault(version, candidate)  # type: ignore[arg-type]
    return found


def test_the_wheel_owns_one_name_and_is_typed(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} - {"trtdet"} == {
        next(name for name in names if ".dist-info/" in name).split("/")[0]
    }
    for expected in (
        "py.typed",
        "cli.py",
        "engine/pipeline.py",
        "benchmarks/page.css",
        "build/detectors/npr.py",
        "starter/model.onnx",
        "starter/card.json",
    ):
        assert f"trtdet/{expected}" in names
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.full
def test_the_main_job_from_the_installed_wheel(wheel, tmp_path, pictures, synthetic_weights):
    """Build, compile and score, with the wheel alone: the checkout is nowhere on the path."""
    python = new_environment(sys.executable, tmp_path / "env")
    sh(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    # The dependencies (torch among them) come from this environment; .pth files in an appended
    # folder are not read, so its editable trtdet stays out.
    here = next(path for path in sys.path if path.endswith("site-packages"))
    purelib = sh(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(purelib) / "dependencies.pth").write_text(here + "\n")
    where = sh(python, "-c", "import trtdet.engine; print(trtdet.engine.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)

    trtdet = python.parent / "trtdet"
    weights = synthetic_weights("npr", "npr")
    bundle = sh(trtdet, "build", "--model", "npr", "--weights", weights, "--target", "sm_86",
                cwd=tmp_path).strip()  # fmt: skip
    assert list((Path(bundle) / "plans").glob("*.plan"))
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    sh(trtdet, "score", table, tmp_path / "out.csv", cwd="/")
    assert len(read_rows(tmp_path / "out.csv")) == len(pictures) + 1


def run_engine_tests(python: Path, folder: Path, bundle: Path) -> None:
    """The runtime's own tests, in a folder without the sources."""
    shutil.copytree(REPOSITORY / "tests", folder / "tests", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    environment = {**os.environ, BUNDLE_VARIABLE: str(bundle)}
    runtime = ("-m", "pytest", "-q", "-m", "not full", "tests/engine")
    passed = re.search(r"(\d+) passed", sh(python, *runtime, cwd=folder, env=environment))
    assert passed
    assert int(passed[1]) > 60


IMPORT_ALL = """
import pkgutil, trtdet.engine
for found in pkgutil.iter_modules(trtdet.engine.__path__, "trtdet.engine."):
    try:
        __import__(found.name)
    except ImportError as error:  # of another package: an extra's
        assert not (error.name or "").startswith("trtdet"), error
    print(found.name)
"""


@pytest.mark.parametrize(
    ("which", "tested"),
    [
        ("oldest", False),
        pytest.param("oldest", True, marks=pytest.mark.full),
        pytest.param("newest", True, marks=pytest.mark.full),
    ],
)
def test_the_runtime_on_other_interpreters(wheel, tmp_path, small_bundle, pictures, which, tested):
    """A base install in an empty environment: its modules or their tests, and a score; no torch."""
    interpreters = other_interpreters()
    version = (min if which == "oldest" else max)(interpreters, default=None)
    if version is None or version == sys.version_info[:2]:
        pytest.skip(f"no other supported Python to be the {which}")
    python = new_environment(interpreters[version], tmp_path / "env")
    sh(python, "-m", "pip", "install", "--quiet", "--constraint", REPOSITORY / "constraints.txt",
       wheel, *(("pytest", "hypothesis") if tested else ()))  # fmt: skip
    assert "torch" not in sh(python, "-m", "pip", "list").split()
    if tested:
        run_engine_tests(python, tmp_path, small_bundle)
    else:
        assert "trtdet.engine.pipeline" in sh(python, "-c", IMPORT_ALL, cwd=tmp_path).split()

    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    outputs = [tmp_path / "here.csv", tmp_path / "there.csv"]
    run_trtdet("score", "--engine", small_bundle, table, outputs[0])
    sh(python.parent / "trtdet", "score", "--engine", small_bundle, table, outputs[1], cwd="/")
    scores = [np.array([float(row[1]) for row in read_rows(path)[1:]]) for path in outputs]
    assert len(scores[0]) == len(pictures)
    # The starter needs nothing but the wheel.
    sh(python.parent / "trtdet", "score", table, tmp_path / "starter.csv", cwd="/")
    assert len(read_rows(tmp_path / "starter.csv")) == len(pictures) + 1
    page = sh(python.parent / "trtdet", "demo", cwd=tmp_path).strip()
    assert Path(page) == tmp_path / "trtdet-demo/index.html"
    # Another Pillow may have another codec, and Pillow 12 resizes some sizes a level apart from
    # Pillow 13, so the bits are not compared.
    assert np.allclose(scores[0], scores[1], rtol=2e-3, atol=2e-3)
