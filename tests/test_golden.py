"""The whole way, by the command line alone: a released checkpoint, built, then scored, gives the
logits of the paper's own code."""

from __future__ import annotations

import hashlib
import json
import runpy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb

BOTH_TARGETS = "sm_86,sm_120"


@dataclass(frozen=True)
class Golden:
    """One table of `golden.json` and how to get it."""

    model: str
    table: str
    logit: str  # the key of the logit in each image's entry
    tolerance: float  # of 1 + |logit|
    checkpoint: str | None  # under shared/checkpoints; None: weights from the recipe


FERRETNET, FORENSYNTH, WILDRF = (
    "ferretnet-s-median-3.pth",
    "ForenSynth_Tiny_LaDeDa.pth",
    "WildRF_Tiny_LaDeDa.pth",
)
GOLDENS = [
    Golden("ferretnet-s", "ferretnet_s_real", "logit_centercrop256", 1e-4, FERRETNET),
    Golden("tiny-ladeda", "tiny_ladeda_forensynth_real_resize256", "NPR", 3e-3, FORENSYNTH),
    Golden("tiny-ladeda", "tiny_ladeda_wildrf_real_resize256", "left_diag", 3e-3, WILDRF),
    Golden("npr", "npr_synth", "resize256_nocrop", 1e-4, None),
]


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, dict]:
    return json.loads((shared / "golden/golden.json").read_text())


def recipe_checkpoint(shared: Path, path: Path) -> Path:
    """NPR's network filled by the recipe of the golden data."""
    torch = pytest.importorskip("torch")
    from trtdet.build.detectors.registry import find_detector

    spec = find_detector("npr")
    shapes = {
        key: tensor.shape for key, tensor in spec.network(spec.variants[0]).state_dict().items()
    }
    filled = runpy.run_path(str(shared / "golden/recipe.py"))["fill_state_dict"](shapes)
    torch.save({key: torch.from_numpy(value) for key, value in filled.items()}, path)
    return path


def test_decoded_bytes_are_those_of_the_papers_code(shared: Path, golden: dict[str, dict]):
    for name, facts in golden["_images"].items():
        data = (shared / "golden/images" / name).read_bytes()
        rgb = decode_rgb(data, max_pixels=DEFAULT_MAX_PIXELS)
        assert [rgb.shape[1], rgb.shape[0]] == facts["size_wh"], name
        assert hashlib.sha256(rgb.tobytes()).hexdigest() == facts["rgb_sha256"], name


@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case.table)
def test_build_then_score_gives_the_golden_logits(
    shared: Path, golden: dict[str, dict], tmp_path: Path, case: Golden
):
    weights = (
        shared / "checkpoints" / case.checkpoint
        if case.checkpoint
        else recipe_checkpoint(shared, tmp_path / "npr.pth")
    )
    built = run_trtdet("build", "--model", case.model, "--weights", weights)
    assert built.stdout.count("\n") == 1  # the path, and nothing else
    bundle = Path(built.stdout.strip())
    assert (bundle / "bundle.json").is_file()

    expected = {name: entry[case.logit] for name, entry in golden[case.table].items()}
    table = write_rows(
        tmp_path / "in.csv", (str(shared / "golden/images" / name) for name in expected)
    )
    run_trtdet("score", table, tmp_path / "out.csv")  # the build made it the default
    rows = read_rows(tmp_path / "out.csv")[1:]
    assert len(rows) == len(expected) > 10
    logits = np.array([float(logit) for _, logit in rows])
    reference = np.array(list(expected.values()))
    error = np.abs(logits - reference) / (1 + np.abs(reference))
    assert error.max() <= case.tolerance, (
        f"{Path(rows[int(error.argmax())][0]).name}: {error.max()}"
    )

    plans = run_trtdet("compile", bundle, "--target", BOTH_TARGETS).stdout.split()
    assert len(plans) == 2
    assert all(Path(plan).stat().st_size > 10_000 for plan in plans)
