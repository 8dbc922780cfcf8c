"""Distorted images go through the engine that scores files, and give its scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtdet.benchmarks.evaluate_bundles import Run, evaluate_bundles
from trtdet.benchmarks.evaluation_report import AUC, BALANCED, Settings
from trtdet.benchmarks.robustness import draw_subset, measure_robustness
from trtdet.calibration.distortions import FAMILIES, Family, Level, cropped, file_generator, noisy
from trtdet.calibration.labels import LabelledImage
from trtdet.calibration.metrics import roc_auc
from trtdet.calibration.scoring import score_each
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import open_bundle
from trtdet.engine.engine import open_engine

SETTINGS = Settings(rounds=100, smallest_group=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[LabelledImage]:
    """Twelve PNGs: noise is real, smooth is synthetic."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for index in range(12):
        size = (70, 64) if index % 2 == 0 else (9, 8)
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        image = Image.fromarray(pixels).resize((64, 70), Image.Resampling.BICUBIC)
        image.save(folder / f"{index}.png")
        found.append(LabelledImage(folder / f"{index}.png", index % 2, generator="G" * (index % 2)))
    return found


@pytest.fixture(scope="module")
def engine(small_bundle):
    backend, _rejected = choose_backend("openvino")
    with open_engine(backend, open_bundle(small_bundle)) as opened:
        yield opened


def test_a_distorted_image_scores_as_its_file_would(engine, images, tmp_path):
    """Each distortion's pixels saved losslessly and scored as files: the same bits."""
    path = images[1].path
    with Image.open(path) as image:
        rgb = np.asarray(image)
    for family in FAMILIES:
        for level in (family.levels[0], family.levels[-1]):
            if level.distort is None:
                continue
            made = level.distort(rgb, file_generator(7, path.name))
            Image.fromarray(made).save(tmp_path / "made.png")
            (expected,), _none = score_each(engine, [tmp_path / "made.png"])

            def change(row, pixels, level=level):
                return level.distort(pixels, file_generator(7, Path(row.filename).name))

            (found,), reasons = score_each(engine, [path], change=change)
            assert reasons == {}
            np.testing.assert_array_equal(found, expected)


def test_curves_hold_every_level_and_the_undistorted_scores(engine, images):
    paths = [each.path for each in images]
    labels = np.array([each.label for each in images])
    plain, _reasons = score_each(engine, paths)
    as_is = Level("as is", None)
    half = Level("50", partial(cropped, share=0.5))
    strong = Level("4", partial(noisy, sigma=4.0))
    families = (Family("Crop", "", (as_is, half)), Family("Noise", "", (strong, as_is)))
    heard: list[int] = []
    (curves,) = measure_robustness(
        engine,
        paths,
        labels,
        np.arange(len(paths)),
        plain,
        SETTINGS,
        on_rows=heard.append,
        families=families,
    )
    assert {name: [point.level for point in points] for name, points in curves.items()} == {
        "Crop": ["as is", "50"], "Noise": ["4", "as is"]
    }  # fmt: skip
    assert sum(heard) == 2 * len(images)
    undistorted = roc_auc(labels, plain[:, 0].astype(np.float64))
    for point in (curves["Crop"][0], curves["Noise"][1]):
        assert point.failed == 0
        assert point.measured.metrics[AUC].value == undistorted
    (again,) = measure_robustness(
        engine,
        paths,
        labels,
        np.arange(len(paths)),
        plain,
        SETTINGS,
        on_rows=heard.append,
        families=families,
    )
    assert again == curves


def test_what_cannot_be_distorted_is_counted_and_left_out(engine, images):
    def refuse(rgb, rng):
        if rng.random() < 0.5:
            raise ValueError("encoder error -5")
        return rgb

    paths = [each.path for each in images]
    labels = np.array([each.label for each in images])
    plain, _reasons = score_each(engine, paths)
    family = Family("Codec", "", (Level("1", refuse),))
    (curves,) = measure_robustness(
        engine,
        paths,
        labels,
        np.arange(len(paths)),
        plain,
        SETTINGS,
        on_rows=lambda _count: None,
        families=(family,),
    )
    (point,) = curves["Codec"]
    assert 0 < point.failed < len(images)
    assert point.measured.real + point.measured.synthetic == len(images) - point.failed
    assert point.measured.metrics.keys() >= {AUC, BALANCED}


@pytest.mark.parametrize(("count", "real", "synthetic"), [(10, 5, 5), (7, 3, 4), (1000, 30, 60)])
def test_the_subset_has_half_of_each_class(count, real, synthetic):
    labels = np.array([0] * 30 + [1] * 60)
    scored = np.ones(90, bool)
    drawn = draw_subset(labels, scored, count, seed=1)
    assert (int((labels[drawn] == 0).sum()), int(labels[drawn].sum())) == (real, synthetic)
    assert len(set(drawn.tolist())) == len(drawn)
    again = draw_subset(labels, scored, count, seed=1)
    assert drawn.tolist() == sorted(drawn.tolist()) == again.tolist()


def test_what_one_bundle_cannot_score_changes_no_other_image():
    labels, scored = np.array([0] * 300 + [1] * 300), np.ones(600, bool)
    drawn = set(draw_subset(labels, scored, 100, seed=1).tolist())
    lost = min(drawn)
    scored[lost] = False
    others = set(draw_subset(labels, scored, 100, seed=1).tolist())
    assert len(others) == 100
    assert drawn - others == {lost}


def test_bundles_are_scored_one_after_the_other(small_bundle, images):
    backend, _rejected = choose_backend("openvino")
    bundle = open_bundle(small_bundle)
    run = Run(backend, SETTINGS, robustness_images=4)
    heard: dict[str, int] = {}

    def on_rows(name: str, count: int) -> None:
        heard[name] = heard.get(name, 0) + count

    source = images[0].path.parent
    report = evaluate_bundles([bundle, bundle], source, images, run, on_rows=on_rows)
    (name,) = heard
    assert heard[name] == 2 * run.images_scored(len(images)) == 2 * (12 + 32 * 4)
    assert name.startswith("small (")
    first, second = report.results
    assert first.overall == second.overall
    assert (report.data, report.images) == (source.name, 12)
    assert report.comparisons[0].auc.p == 1.0
