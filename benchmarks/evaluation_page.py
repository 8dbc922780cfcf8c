"""An evaluation as a page: tables, curves, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from trtdet.benchmarks import evaluation_figures as figures
from trtdet.benchmarks import evaluation_tables as tables
from trtdet.benchmarks import page
from trtdet.benchmarks.evaluation_report import AP, AUC, BALANCED, BEST_BALANCED, Report, Result
from trtdet.benchmarks.groups import FORMAT, GENERATOR, SOURCE
from trtdet.calibration.distortions import FAMILIES
from trtdet.calibration.labels import REAL
from trtdet.calibration.reliability import BINS

_LISTED = 50  # failures
_PERCENT = "\N{NO-BREAK SPACE}%"


def evaluation_page(report: Report, run: Mapping[str, Any]) -> str:
    """The whole page; `run` is `describe_run`'s."""
    several = len(report.results) > 1
    subject = "detectors reach" if several else f"{report.results[0].name} reaches"
    return page.html_page(
        f"What {subject} on {report.data}",
        page.paragraph(
            f"{report.counted}. A logit above 0 means synthetic. "
            f"In brackets and as bands: 95{_PERCENT} intervals."
        ),
        None if several else _tiles(report.results[0]),
        tables.overall(report),
        tables.comparisons(report) if several else None,
        *_figures(report),
        tables.groups(report, GENERATOR, "By generator", _GENERATOR_NOTE),
        tables.groups(report, SOURCE, "By source", _SOURCE_NOTE),
        tables.groups(report, FORMAT, "By file format", _FORMAT_NOTE),
        _robustness(report),
        _mistakes(report),
        _failures(report),
        _method(report, run),
    )


def _figures(report: Report) -> list[Element]:
    """Order and decision, then probability; of one detector side by side."""
    order = [figures.roc(report), *map(figures.histogram, report.results)]
    worth = [*map(figures.reliability, report.results)]
    if len(report.results) == 1:
        heading = "Order, decision, probability"
        return [page.section(heading, page.grid(*order, *worth), note=_ORDER_NOTE + _WORTH_NOTE)]
    heading = "The order of the images, and where the decision cuts it"
    return [
        page.section(heading, tables.hues(report), page.grid(*order), note=_ORDER_NOTE),
        page.section("What a probability is worth", page.grid(*worth), note=_WORTH_NOTE),
    ]


_ORDER_NOTE = (
    "The ROC knows nothing of where 0 lies: a dot is the decision that a detector makes by itself. "
    "The histogram shows both classes' logits around it. "
)
_WORTH_NOTE = (
    f"Reliability: images in {BINS} bins of 1 / (1 + exp(−logit)). On the dotted line, of images "
    f"called synthetic with 80{_PERCENT}, 80{_PERCENT} are. A dot grows with its images; the share "
    "of synthetic images in the set moves them all."
)
_GENERATOR_NOTE = (
    "Each generator's files against the real ones that belong to it, or against all of them. "
    "Dotted: 0.5, chance."
)
_SOURCE_NOTE = (
    "Where files come from, with the accuracy at logit 0: many sources have files of one class "
    "only, and no AUC."
)
_FORMAT_NOTE = (
    "Where real and synthetic files differ in format, a detector can tell the format and not the "
    "image. The rows of one format alone compare like with like."
)


def _tiles(result: Result) -> Element:
    metrics = result.overall.metrics
    shown = [
        (AUC, metrics[AUC], "how well images are ordered"),
        (AP, metrics[AP], "average precision"),
        ("Balanced accuracy", metrics[BALANCED], "at logit 0"),
        ("Balanced accuracy", metrics[BEST_BALANCED], f"at logit {result.threshold:.2f}, the best"),
    ]
    if result.cup:
        shown.append(("The cup's score", result.cup.score, "0.7 part 1 + 0.3 part 2"))
    return page.tiles(
        (name, f"{found.value:.3f}", f"[{found.low:.3f}, {found.high:.3f}] {below}")
        for name, found, below in shown
    )


def _robustness(report: Report) -> Element | None:
    if not any(result.robustness for result in report.results):
        return None
    first = report.results[0].robustness[FAMILIES[0].name][0]
    failed = sum(
        point.failed
        for result in report.results
        for points in result.robustness.values()
        for point in points
    )
    lost = f" {failed} distorted images could not be scored and are left out." if failed else ""
    return page.section(
        "Robustness",
        tables.hues(report),
        page.grid(*figures.curves(report)),
        note=f"{first.measured.real} real and {first.measured.synthetic} synthetic images, drawn "
        "in one order for all detectors, each distorted after decoding and before it is brought to "
        f"the detector's input. Dotted: 0.5, chance.{lost}",
    )


def _mistakes(report: Report) -> Element | None:
    rows: list[list[page.Content]] = [
        [
            result.name,
            page.element("code", each.file),
            "real" if each.label == REAL else "synthetic",
            each.origin,
            page.minus(f"{each.logit:+.2f}"),
        ]
        for result in report.results
        for each in result.mistakes
    ]
    if not rows:
        return None
    return page.section(
        "Furthest on the wrong side",
        page.table(["detector", "file", "it is", "from", "logit"], rows, texts=4),
        note="Of each class the files whose logits are the worst. A label may be wrong, too.",
    )


def _failures(report: Report) -> Element | None:
    rows: list[list[page.Content]] = [
        [result.name, page.element("code", file), reason]
        for result in report.results
        for file, reason in list(result.failures.items())[:_LISTED]
    ]
    if not rows:
        return None
    failed = ", ".join(f"{result.name} {result.failed}" for result in report.results)
    return page.section(
        "Not scored",
        page.table(["detector", "file", "reason"], rows, texts=3),
        note=f"These images count nowhere above: {failed}.",
    )


def _method(report: Report, run: Mapping[str, Any]) -> Element:
    settings = report.settings
    machine, versions = run["machine"], run["versions"]
    entries = {
        "intervals": f"bootstrap, {settings.rounds:,} resamples of the pictures within each class, "
        f"seed {settings.seed}; Wilson's for shares of one class; DeLong's for differences in AUC",
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": run["commit"] or "an installed package",
    }
    detectors: list[list[page.Content]] = [
        [result.name, result.engine, result.trained_on or "–"] for result in report.results
    ]
    return page.section(
        "How it was measured",
        page.facts(entries),
        page.table(["detector", "engine", "trained on"], detectors, texts=3),
        note="Images that a detector was trained on, or chosen by, flatter it.",
    )
