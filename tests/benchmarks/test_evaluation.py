"""A report of known scores: every number in it can be worked out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.chromium import open_browser
from trtdet.benchmarks.evaluation import cup_score, make_report, measure
from trtdet.benchmarks.evaluation_page import evaluation_page
from trtdet.benchmarks.evaluation_record import as_markdown, json_text
from trtdet.benchmarks.evaluation_report import (
    ACCURACY,
    AP,
    AUC,
    BALANCED,
    BEST_BALANCED,
    FOUND,
    PASSED,
    Detector,
    Point,
    Report,
    Settings,
)
from trtdet.benchmarks.record import describe_run
from trtdet.calibration.distortions import FAMILIES
from trtdet.calibration.labels import LabelledImage
from trtdet.calibration.metrics import average_precision, balanced_accuracy, roc_auc

SETTINGS = Settings(rounds=200, smallest_group=5)
HOSTILE = "<script>alert('x')</script>.png"


@pytest.fixture(scope="module")
def images() -> list[LabelledImage]:
    """A hundred, half of them synthetic, with hostile names."""
    return [
        LabelledImage(
            Path(f"/data/{index} {HOSTILE}"),
            label=index % 2,
            generator=(HOSTILE if index % 4 == 1 else "GAN") if index % 2 else "",
            source=f"source {index % 3} {HOSTILE}",
            part="1" if index < 60 else "2",
        )
        for index in range(100)
    ]


def detector(name: str, images: list[LabelledImage], seed: int, worth: float) -> Detector:
    rng = np.random.default_rng(seed)
    logits = np.array([worth * (each.label - 0.5) for each in images])
    logits += rng.normal(0, 1, len(images))
    logits[[3, 10]] = np.nan
    point = measure(np.array([0, 1] * 10), rng.normal(0, 1, 20), np.arange(20), SETTINGS)
    curves = {
        family.name: [Point(level.name, 1, point) for level in family.levels] for family in FAMILIES
    }
    reasons = {f"3 {HOSTILE}": "the file is empty", f"10 {HOSTILE}": "truncated <PNG>"}
    return Detector(name, "float32, a backend", f"all {HOSTILE}", logits, reasons, curves)


@pytest.fixture(scope="module")
def detectors(images) -> list[Detector]:
    return [detector("good", images, 1, 2.0), detector(f"bad {HOSTILE}", images, 2, 0.3)]


@pytest.fixture(scope="module")
def report(images, detectors) -> Report:
    names = [each.path.name for each in images]
    return make_report(f"data {HOSTILE}", images, names, detectors, SETTINGS)


def test_the_whole_set_is_measured_without_what_failed(report, images, detectors):
    labels = np.array([each.label for each in images])
    for result, given in zip(report.results, detectors, strict=True):
        known = ~np.isnan(given.logits)
        pair = (labels[known], given.logits[known])
        metrics = result.overall.metrics
        assert (result.failed, len(result.failures)) == (2, 2)
        assert (result.overall.real, result.overall.synthetic) == (49, 49)
        assert metrics[AUC].value == roc_auc(*pair)
        assert metrics[AP].value == average_precision(*pair)
        assert metrics[BALANCED].value == balanced_accuracy(*pair)
        moved = balanced_accuracy(pair[0], pair[1] - result.threshold)
        assert metrics[BEST_BALANCED].value == moved >= metrics[BALANCED].value
        assert metrics[FOUND].value == (pair[1][pair[0] == 1] > 0).mean()
        assert metrics[PASSED].value == (pair[1][pair[0] == 0] <= 0).mean()
        assert sum(result.histogram.real) == sum(result.histogram.synthetic) == 49
        assert 0.0 in result.histogram.edges
        assert sum(each.images for each in result.bins) == 98


def test_groups_are_measured_each(report, images, detectors):
    (good, _bad) = report.results
    labels = np.array([each.label for each in images])
    generator = np.array([each.generator for each in images])
    kept = ~np.isnan(detectors[0].logits) & ((labels == 0) | (generator == "GAN"))
    (group,) = [each for each in good.groups if each.name == "GAN"]
    pair = (labels[kept], detectors[0].logits[kept])
    assert group.measured.metrics[AUC].value == roc_auc(*pair)
    moved = balanced_accuracy(pair[0], pair[1] - good.threshold)  # the threshold of all images
    assert group.measured.metrics[BEST_BALANCED].value == moved
    assert [each.name for each in good.groups if each.kind == "source"] == [
        f"source {number} {HOSTILE}" for number in range(3)
    ]


def test_a_group_of_one_class_has_its_accuracy_alone():
    found = measure(np.ones(4, int), np.array([1.0, 2.0, -1.0, 3.0]), np.arange(4), SETTINGS)
    assert (found.real, found.synthetic) == (0, 4)
    assert found.metrics.keys() == {FOUND, ACCURACY}
    assert found.metrics[ACCURACY].value == 0.75
    assert measure(np.ones(0, int), np.zeros(0), np.arange(0), SETTINGS).metrics == {}


def test_the_cups_score_weighs_its_parts():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    logits = np.array([-1.0, 1, -1, 1, -1, -1, -1, 1])  # part 1: all right; part 2: 0.75
    found = cup_score(["1"] * 4 + ["2"] * 4, labels, logits, np.arange(8), SETTINGS)
    assert found is not None
    assert {part: each.value for part, each in found.parts.items()} == {"1": 1.0, "2": 0.75}
    assert found.score.value == pytest.approx(0.7 * 1.0 + 0.3 * 0.75)
    assert found.score.low < found.score.value <= found.score.high
    assert cup_score(["1"] * 8, labels, logits, np.arange(8), SETTINGS) is None
    assert cup_score([""] * 8, labels, logits, np.arange(8), SETTINGS) is None


def test_pairs_are_compared_on_what_both_scored(report):
    (pair,) = report.comparisons
    good, bad = report.results
    assert (pair.first, pair.second, pair.images) == (good.name, bad.name, 98)
    difference = good.overall.metrics[AUC].value - bad.overall.metrics[AUC].value
    assert pair.auc.value.value == pytest.approx(difference)
    assert pair.auc_holm == pair.auc.p < 0.01


def test_a_pair_with_one_image_of_a_class_is_not_compared(images):
    few = [each for each in images if each.label] + [each for each in images if not each.label][:1]
    pair = [Detector(name, "", "", np.linspace(-1, 1, len(few)), {}, {}) for name in "ab"]
    report = make_report("few", few, [each.path.name for each in few], pair, SETTINGS)
    assert report.comparisons == []
    json.loads(json_text(report, {}), parse_constant=pytest.fail)
    assert "<h1>" in evaluation_page(report, describe_run())


def test_the_worst_mistakes_are_named(report, images, detectors):
    for result, given in zip(report.results, detectors, strict=True):
        real = [each for each in result.mistakes if each.label == 0]
        of_real = [value for value, each in zip(given.logits, images, strict=True)
                   if each.label == 0 and value > 0]  # fmt: skip
        assert [each.logit for each in real] == sorted(of_real, reverse=True)[:5]
        assert all(each.logit < 0 for each in result.mistakes if each.label == 1)


def test_the_record_is_json_with_intervals_as_three_numbers(report):
    text = json_text(report, describe_run())
    record = json.loads(text)
    assert len(record["results"][0]["roc"]["true_positives"]) > 20
    assert max(map(len, text.splitlines())) > 200  # a curve is a line
    assert HOSTILE in record["data"]
    assert record["results"][0]["overall"]["metrics"][AUC] == pytest.approx(
        [getattr(report.results[0].overall.metrics[AUC], end) for end in ("value", "low", "high")],
        abs=1e-6,
    )
    assert record["comparisons"][0]["auc"]["p"] == pytest.approx(
        report.comparisons[0].auc.p, abs=1e-6
    )
    assert as_markdown([report]).count("\n") == 1 + len(report.results)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_opens_whatever_files_are_called(report, tmp_path, count, width, dark):
    """No console message, no request, nothing wider than the window, and no script."""
    shown = Report(**{**vars(report), "results": report.results[:count],
                      "comparisons": report.comparisons[: count - 1]})  # fmt: skip
    path = tmp_path / "page.html"
    path.write_text(evaluation_page(shown, describe_run()), encoding="utf-8")
    with open_browser() as browser:
        browser.open(path, width=width, dark=dark)
        assert browser.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in browser.requests)
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert browser.evaluate("document.scripts.length") == 0
        text = browser.evaluate("document.body.innerText")
        assert text.count(HOSTILE) > 10
        figures = browser.evaluate("document.querySelectorAll('figure').length")
        assert figures == 1 + 2 * count + 2 * len(FAMILIES)
        unnamed = "document.querySelectorAll('svg[role=img]:not([aria-label])').length"
        assert browser.evaluate(unnamed) == 0
