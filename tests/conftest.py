"""Fixtures: the shared folder of golden data, drawn images, and small bundles built once a run."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
def synthetic_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Make a checkpoint with seeded random weights for a detector and variant."""
    folder = tmp_path_factory.mktemp("weights")

    def make(model: str, variant: str) -> Path:
        torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")
        from trtdet.build.detectors.registry import find_detector

        spec = find_detector(model)
        chosen = next(each for each in spec.variants if each.name == variant)
        generator = torch.Generator().manual_seed(11)
        tensors = {}
        for key, tensor in spec.network(chosen).state_dict().items():
            if key.endswith("num_batches_tracked"):
                tensors[key] = tensor
            elif key.endswith("running_var"):
                tensors[key] = 1.0 + 0.2 * torch.rand(tensor.shape, generator=generator)
            else:
                scale = max(tensor[0].numel(), 1) ** -0.5 if tensor.dim() > 1 else 0.2
                tensors[key] = scale * torch.randn(tensor.shape, generator=generator)
        path = folder / f"{model}-{variant}.pth"
        torch.save(tensors, path)
        return path

    return make


@pytest.fixture(scope="session")
def small_bundle(
    tmp_path_factory: pytest.TempPathFactory, synthetic_weights: Callable[[str, str], Path]
) -> Path:
    """A real bundle with random weights: Tiny-LaDeDa's network, the quickest to build and run."""
    if given := os.environ.get(BUNDLE_VARIABLE):
        return Path(given)
    out = tmp_path_factory.mktemp("bundles") / "small"
    weights = synthetic_weights("tiny-ladeda", "wildrf")
    run_trtdet(
        "build", "--model", "tiny-ladeda", "--variant", "wildrf",
        "--weights", weights, "--out", out, "--name", "small", "--no-default",
    )  # fmt: skip
    return out
