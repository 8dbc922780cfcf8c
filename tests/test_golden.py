"""The whole way, by the command line alone: a released checkpoint, built, then scored, gives the
logits of the paper's own code."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.engine.bundle import open_bundle
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb

BOTH_TARGETS = "sm_86,sm_120"

# Seconds, on two cores that others use as well: CLIP's ViT-L/14 takes 70 to build.
SLOW = {"timeout": 1800}


@dataclass(frozen=True)
class Golden:
    """One column of `golden.json` and how to get it."""

    model: str
    table: str
    logit: str  # the key of the logit in each image's entry
    checkpoint: str | None = None  # under shared/checkpoints; None: weights from the recipe
    tolerance: float = 1e-4  # of 1 + |logit|
    options: tuple[str, ...] = ()  # of `trtdet build`

    def __str__(self) -> str:
        return f"{self.table} {self.logit}"


FERRETNET, FORENSYNTH, WILDRF = (
    "ferretnet-s-median-3.pth",
    "ForenSynth_Tiny_LaDeDa.pth",
    "WildRF_Tiny_LaDeDa.pth",
)
RESIZED = [
    Golden("ferretnet-s", "ferretnet_s_real", "logit_centercrop256", FERRETNET),
    Golden("tiny-ladeda", "tiny_ladeda_forensynth_real_resize256", "NPR", FORENSYNTH, 3e-3),
    Golden("tiny-ladeda", "tiny_ladeda_wildrf_real_resize256", "left_diag", WILDRF, 3e-3),
    Golden("npr", "npr_synth", "resize256_nocrop"),
    Golden("local-grad", "npr_localgrad_synth", "resize256_nocrop"),
]
OTHERS = [
    Golden("npr", "npr_synth", "resize256_crop224", options=("--geometry", "stretch-256-crop-224")),
    Golden("local-grad", "npr_localgrad_synth", "native", options=("--geometry", "native")),
    Golden("ferretnet-s", "ferretnet_s_real", "logit_native", FERRETNET,
           options=("--geometry", "native")),
    # In tiles: images have 128 to 512 pixels a side.
    Golden("npr", "npr_synth", "native_eventrim",
           options=("--geometry", "native", "--tile", "300")),
]  # fmt: skip
NODOWN = [
    Golden("aligned", "res50nodown_synth_native", "avgpool_head"),
    Golden("gan-nodown", "res50nodown_synth_native", "avgpool_head"),
    Golden("corvi", "res50nodown_synth_native", "dense_map_mean", options=("--variant", "latent")),
    Golden("imaginet", "imaginet_synth_native", "logit"),
]

VIT_L14, VIT_B32 = "keys_clip_vitl14_visual.txt", "keys_clip_vitb32_visual.txt"


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, dict]:
    return json.loads((shared / "golden/golden.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For gigabytes: gone after the test, whatever came of it."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def recipe_checkpoint(shared: Path, model: str, path: Path) -> Path:
    """A detector's network filled by the recipe of the golden data, saved as its authors do."""
    torch = pytest.importorskip("torch")
    from tests.build.random_weights import in_layout
    from tests.build.recipe import recipe_tensors
    from trtdet.build.detectors.registry import find_detector

    spec = find_detector(model)
    tensors = recipe_tensors(shared, spec.network(spec.variants[0]).state_dict())
    torch.save(in_layout(spec, tensors), path)
    return path


def recipe_tower(shared: Path, keys: str, path: Path) -> Path:
    """A CLIP tower filled by the recipe."""
    torch = pytest.importorskip("torch")
    from tests.build.recipe import listed_tensors

    torch.save(listed_tensors(shared, keys), path)
    return path


def build(case: Golden, shared: Path, folder: Path) -> Path:
    weights = (
        shared / "checkpoints" / case.checkpoint
        if case.checkpoint
        else recipe_checkpoint(shared, case.model, folder / "weights.pth")
    )
    out = folder / "bundle"
    built = run_trtdet(
        "build", "--model", case.model, "--weights", weights, "--out", out, *case.options, **SLOW
    )
    assert built.stdout == f"{out}\n"  # the path, and nothing else
    assert open_bundle(out).checkpoint["released"] is (case.checkpoint is not None)
    return out


def scored(shared: Path, names: list[str], folder: Path, *options: str) -> np.ndarray:
    """The golden images by the default engine, which the last build became: [images, columns]."""
    paths = (str(shared / "golden/images" / name) for name in names)
    table = write_rows(folder / "in.csv", paths)
    run_trtdet("score", table, folder / "out.csv", *options, **SLOW)
    rows = read_rows(folder / "out.csv")[1:]
    assert [Path(row[0]).name for row in rows] == names
    return np.array([[float(logit) for logit in row[1:]] for row in rows])


def assert_golden(logits, expected: dict[str, float], tolerance: float) -> None:
    reference = np.array(list(expected.values()))
    assert np.ptp(reference) > 10 * tolerance  # no constant would do
    error = np.abs(np.asarray(logits) - reference) / (1 + np.abs(reference))
    assert error.max() <= tolerance, f"{list(expected)[int(error.argmax())]}: {error.max()}"


def column(golden: dict, case: Golden) -> dict[str, float]:
    return {name: entry[case.logit] for name, entry in golden[case.table].items()}


def test_decoded_bytes_are_those_of_the_papers_code(shared: Path, golden: dict[str, dict]):
    for name, facts in golden["_images"].items():
        data = (shared / "golden/images" / name).read_bytes()
        rgb = decode_rgb(data, max_pixels=DEFAULT_MAX_PIXELS)
        assert [rgb.shape[1], rgb.shape[0]] == facts["size_wh"], name
        assert hashlib.sha256(rgb.tobytes()).hexdigest() == facts["rgb_sha256"], name


@pytest.mark.parametrize(
    "case", [*RESIZED[:-1], pytest.param(RESIZED[-1], marks=pytest.mark.full)], ids=str
)
def test_build_then_score_gives_the_golden_logits(shared, golden, tmp_path, case: Golden):
    bundle = build(case, shared, tmp_path)
    expected = column(golden, case)
    assert len(expected) > 10
    assert_golden(scored(shared, list(expected), tmp_path)[:, 0], expected, case.tolerance)

    plans = run_trtdet("compile", bundle, "--target", BOTH_TARGETS).stdout.split()
    assert len(plans) == 2
    assert all(Path(plan).stat().st_size > 10_000 for plan in plans)


@pytest.mark.full
@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_other_geometries(shared, golden, tmp_path, case: Golden):
    build(case, shared, tmp_path)
    expected = column(golden, case)
    assert_golden(scored(shared, list(expected), tmp_path)[:, 0], expected, case.tolerance)


@pytest.mark.full
@pytest.mark.parametrize("case", NODOWN, ids=lambda case: case.model)
def test_every_image_through_the_nodown_networks(shared, golden, folder, case: Golden):
    build(case, shared, folder)
    expected = column(golden, case)
    assert_golden(scored(shared, list(expected), folder)[:, 0], expected, case.tolerance)


@pytest.mark.full
def test_rine_on_a_small_tower(shared, golden, folder):
    """RINE's B/32: no head for it was ever released, so every weight is the recipe's."""
    torch = pytest.importorskip("torch")
    from tests.build.recipe import recipe_tensors
    from trtdet.build.detectors.rine import RineHead
    from trtdet.build.tower_shapes import TowerConfig

    config = TowerConfig(width=768, layers=12, heads=12, patch=32, image_size=224, output=512)
    head = RineHead(config, 2, 256).state_dict()
    torch.save(recipe_tensors(shared, head, "rineB/"), folder / "head.pth")
    tower = recipe_tower(shared, VIT_B32, folder / "tower.pth")
    run_trtdet(
        "build", "--model", "rine", "--weights", folder / "head.pth", "--backbone", tower,
        "--out", folder / "bundle", **SLOW,
    )  # fmt: skip
    case = Golden("rine", "rine_B32_nproj2_d256_allsynth", "logit_centercrop")
    expected = column(golden, case)
    assert_golden(scored(shared, list(expected), folder)[:, 0], expected, case.tolerance)


@pytest.fixture(scope="module")
def vit_l14(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """1.2 GB, and again as the build reads it, in the store beside it."""
    folder = tmp_path_factory.mktemp("vit-l14")
    yield recipe_tower(shared, VIT_L14, folder / "tower.pth")
    shutil.rmtree(folder)


@pytest.mark.full
class TestVitL14:
    """The released heads of RINE and UnivFD on a tower of the recipe's weights."""

    rine = Golden("rine", "rine_2class_realhead_synthclip_vitl14", "logit_centercrop")
    univfd = Golden("univfd", "univfd_realfc_synthclip_vitl14", "logit_centercrop")
    ten = Golden("rine", "rine_2class_realhead_synthclip_vitl14", "tencrop_mean_logit")

    def build(self, shared: Path, tower: Path, folder: Path, model: str, *options: str) -> Path:
        heads = {"rine": "rine_2class_trainable.pth", "univfd": "univfd_fc_weights.pth"}
        weights = [
            each
            for name in model.split(",")
            for each in ("--weights", shared / "checkpoints" / heads[name])
        ]
        out = folder / "bundle"
        arguments = ("--model", model, *weights, "--backbone", tower, "--out", out, *options)
        run_trtdet("build", *arguments, **SLOW)
        return out

    def test_both_heads_in_one_bundle(self, shared, golden, vit_l14, folder):
        bundle = open_bundle(self.build(shared, vit_l14, folder, "rine,univfd"))
        assert bundle.variant == "2class,progan"  # recognised
        assert [bundle.checkpoint[name]["released"] for name in bundle.outputs] == [True, True]
        logits = scored(shared, list(golden[self.rine.table]), folder)
        for logit, case in zip(logits.T, (self.rine, self.univfd), strict=True):
            assert_golden(logit, column(golden, case), case.tolerance)

    def test_tensorrt_rtx_takes_it_in_fewer_bits(self, shared, vit_l14, folder):
        pytest.importorskip("torch")
        from tests.build.test_precision import accepted_by_tensorrt_rtx

        bundle = open_bundle(self.build(shared, vit_l14, folder, "rine"))
        for precision in ("fp16", "int8"):
            accepted_by_tensorrt_rtx(bundle, precision, folder / "model.onnx")

    def test_ten_crops(self, shared, golden, vit_l14, folder):
        self.build(shared, vit_l14, folder, "rine", "--views", "ten-crop")
        table = golden[self.ten.table]
        with_ten = [name for name, entry in table.items() if self.ten.logit in entry]
        assert len(with_ten) == 13  # two are too small
        expected = {name: table[name][self.ten.logit] for name in with_ten[::5]}
        assert_golden(scored(shared, list(expected), folder)[:, 0], expected, self.ten.tolerance)
