"""An evaluation as a page: tables, curves, and how to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from trtdet.benchmarks import page
from trtdet.benchmarks.charts import (
    Axis,
    Estimate,
    Line,
    Mark,
    legend,
    line_chart,
    linear_axis,
    named_axis,
    strip,
)
from trtdet.benchmarks.evaluation import (
    ACCURACY,
    AP,
    AUC,
    BALANCED,
    BEST_ACCURACY,
    BEST_BALANCED,
    CUP_WEIGHTS,
    FOUND,
    PASSED,
    Measured,
    Report,
    Result,
    group_names,
)
from trtdet.benchmarks.evaluation_record import show_p
from trtdet.benchmarks.groups import FORMAT, GENERATOR, SOURCE
from trtdet.calibration.distortions import FAMILIES
from trtdet.calibration.interval import Interval
from trtdet.calibration.labels import REAL
from trtdet.calibration.reliability import BINS

_SHARE = linear_axis("", 0.0, 1.0)
_DIAGONAL = (((0.0, 0.0), (1.0, 1.0)),)
_REAL, _SYNTHETIC = 6, 7  # hues
_LISTED = 50  # failures
_PERCENT = "\N{NO-BREAK SPACE}%"


def evaluation_page(report: Report, run: Mapping[str, Any]) -> str:
    """The whole page; `run` is `describe_run`'s."""
    several = len(report.results) > 1
    return page.html_page(
        f"What {'detectors reach' if several else report.results[0].name + ' reaches'} "
        f"on {report.data}",
        page.paragraph(
            f"{report.real:,} real and {report.synthetic:,} synthetic images. A logit above 0 "
            f"means synthetic. In brackets and as bands: 95{_PERCENT} intervals."
        ),
        None if several else _tiles(report.results[0]),
        _overall(report),
        _comparisons(report) if several else None,
        page.section(
            "The order of the images, and where the decision cuts it",
            _legend(report),
            page.grid(_roc(report), *(_histogram(each) for each in report.results)),
            note="The ROC knows nothing of where 0 lies: the dots are the decision that a detector "
            "makes by itself. The histograms show both classes' logits around it.",
        ),
        page.section(
            "What a probability is worth",
            page.grid(*(_reliability(each) for each in report.results)),
            note=f"Images in {BINS} bins of 1 / (1 + exp(−logit)). On the dotted line, of images "
            f"called synthetic with 80{_PERCENT}, 80{_PERCENT} are. A dot grows with its images. "
            "The share of synthetic images in the set moves them all.",
        ),
        _groups(report, GENERATOR, "By generator", _GENERATOR_NOTE),
        _groups(report, SOURCE, "By source", _SOURCE_NOTE),
        _groups(report, FORMAT, "By file format", _FORMAT_NOTE),
        _robustness(report),
        _mistakes(report),
        _failures(report),
        _method(report, run),
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


def _overall(report: Report) -> Element:
    """A row for each metric, a column and a lane of the strip for each detector."""
    columns = ["", *(result.name for result in report.results), "0 to 1"]
    rows: list[list[page.Content]] = []
    for name in (AUC, AP, BALANCED, ACCURACY, FOUND, PASSED, BEST_BALANCED, BEST_ACCURACY):
        rows.append(_metric_row(name, [each.overall.metrics[name] for each in report.results]))
        if name == BEST_BALANCED:
            at = [page.minus(f"{result.threshold:.2f}") for result in report.results]
            rows.append(["at the logit", *at, None])
    if any(result.cup for result in report.results):
        rows.append(
            _metric_row(
                "cup score", [each.cup.score if each.cup else None for each in report.results]
            )
        )
        for part in CUP_WEIGHTS:
            found = [each.cup.parts[part] if each.cup else None for each in report.results]
            rows.append(_metric_row(f"balanced accuracy, part {part}", found))
    errors = [f"{result.calibration_error:.3f}" for result in report.results]
    rows.append(["expected calibration error", *errors, None])
    rows.append(["images not scored", *(f"{result.failed:,}" for result in report.results), None])
    return page.section(
        "Over all images",
        _legend(report),
        page.table(columns, rows, drawings=1),
        note="Accuracies are at logit 0, but for the best ones, whose threshold was chosen on "
        "these very images: they flatter, and say what another decision could win.",
    )


def _metric_row(name: str, found: Sequence[Interval | None]) -> list[page.Content]:
    estimates = [_estimate(name, each, hue) for hue, each in enumerate(found) if each]
    return [name, *map(_interval, found), strip(_SHARE, estimates, reference=0.5)]


def _legend(report: Report) -> Element | None:
    """The detectors' hues, where there are several."""
    if len(report.results) == 1:
        return None
    return legend([(result.name, number) for number, result in enumerate(report.results)])


def _comparisons(report: Report) -> Element:
    axis = _difference_axis([each.auc.value for each in report.comparisons])
    rows = []
    for each in report.comparisons:
        pair = f"{each.first} – {each.second}"
        rows.append(
            [
                pair,
                f"{each.images:,}",
                _interval(each.auc.value, signed=True),
                show_p(each.auc_holm),
                _interval(each.accuracy.value, signed=True),
                show_p(each.accuracy_holm),
                strip(axis, [_estimate(pair, each.auc.value, 6)], reference=0.0),
            ]
        )
    columns = ["first – second", "images", AUC, "p of AUC", BALANCED, "p of accuracy"]
    return page.section(
        "Differences",
        page.table([*columns, "difference in AUC"], rows, drawings=1),
        note="On the images that both scored. AUC: DeLong's test. Balanced accuracy at logit 0: "
        "the interval is a paired bootstrap's, p McNemar's exact test. Both p are Holm's, "
        f"corrected for {len(report.comparisons)} comparisons.",
    )


def _roc(report: Report) -> Element:
    lines, marks = [], []
    for number, result in enumerate(report.results):
        roc = result.roc
        lines.append(Line(result.name, roc.false_positives, roc.true_positives, hue=number))
        false, true = roc.at_zero
        title = f"{result.name} at logit 0: {true:.3f} found, {false:.3f} false alarms"
        marks.append(Mark(false, true, title, number))
    areas = ", ".join(f"{each.name} {_value(each.overall, AUC)}" for each in report.results)
    return line_chart(
        "ROC",
        f"Synthetic images found against real images called synthetic. Area: {areas}.",
        linear_axis("real, called synthetic", 0.0, 1.0),
        linear_axis("synthetic, found", 0.0, 1.0),
        lines,
        marks=marks,
        references=_DIAGONAL,
        note="dots: at logit 0",
    )


def _histogram(result: Result) -> Element:
    """Shares of each class, so that classes of different sizes can be compared."""
    histogram = result.histogram
    lines, largest = [], 0.0
    for name, counts, hue in (
        ("real", histogram.real, _REAL),
        ("synthetic", histogram.synthetic, _SYNTHETIC),
    ):
        shares = [100.0 * count / sum(counts) for count in counts]
        largest = max(largest, *shares)
        # A step for each bin: up at its left edge, along, and down at its right one.
        x = [edge for edge in histogram.edges for _side in range(2)]
        y = [0.0, *(share for share in shares for _side in range(2)), 0.0]
        lines.append(Line(name, x, y, hue=hue, area=True, plain=True))
    return line_chart(
        result.name,
        "Histogram of the logits of real and of synthetic images.",
        linear_axis("logit", histogram.edges[0], histogram.edges[-1]),
        linear_axis("percent of the class", 0.0, largest * 1.05, ticks=4),
        lines,
        references=[((0.0, 0.0), (0.0, largest * 1.05))],
        note="logits of real (grey) and synthetic (red) images",
    )


def _reliability(result: Result) -> Element:
    total = sum(each.images for each in result.bins)
    marks = [
        Mark(
            each.probability,
            each.synthetic.value,
            f"{each.images:,} images at {each.probability:.2f}: {each.synthetic} are synthetic",
            _SYNTHETIC,
            each.synthetic.low,
            each.synthetic.high,
            radius=round(2.5 + 5.0 * math.sqrt(each.images / total), 2),
        )
        for each in result.bins
    ]
    return line_chart(
        result.name,
        "Share of synthetic images against the probability that the logit stands for.",
        linear_axis("probability of being synthetic", 0.0, 1.0),
        linear_axis("share that is synthetic", 0.0, 1.0),
        [],
        marks=marks,
        references=_DIAGONAL,
        note=f"expected calibration error {result.calibration_error:.3f}",
    )


def _groups(report: Report, kind: str, heading: str, note: str) -> Element | None:
    """A row for each group, a column and a lane of the strip for each detector."""
    names = group_names(report.results, kind)
    if not names:
        return None
    by_name = [
        {group.name: group.measured for group in result.groups if group.kind == kind}
        for result in report.results
    ]
    shown = ACCURACY if kind == SOURCE else AUC
    columns = [
        kind,
        "real",
        "synthetic",
        *(_column(report, each, shown) for each in report.results),
    ]
    if len(report.results) == 1:
        columns += [BALANCED, FOUND]
    rows = []
    for name in names:
        measured = [groups[name] for groups in by_name]
        row: list[page.Content] = [name, f"{measured[0].real:,}", f"{measured[0].synthetic:,}"]
        row += [_interval(each.metrics.get(shown)) for each in measured]
        if len(report.results) == 1:
            row += [_interval(measured[0].metrics.get(metric)) for metric in (BALANCED, FOUND)]
        estimates = [
            _estimate(result.name, each.metrics[shown], number)
            for number, (result, each) in enumerate(zip(report.results, measured, strict=True))
            if shown in each.metrics
        ]
        row.append(strip(_SHARE, estimates, reference=0.5) if estimates else None)
        rows.append(row)
    return page.section(
        heading,
        _legend(report),
        page.table([*columns, f"{shown}, 0 to 1"], rows, drawings=1),
        note=note,
    )


def _column(report: Report, result: Result, metric: str) -> str:
    return metric if len(report.results) == 1 else result.name


def _robustness(report: Report) -> Element | None:
    if not any(result.robustness for result in report.results):
        return None
    charts = []
    for metric in (AUC, BALANCED):
        values = [
            getattr(point.measured.metrics[metric], end)
            for result in report.results
            for points in result.robustness.values()
            for point in points
            if metric in point.measured.metrics
            for end in ("low", "high")
        ]
        y = linear_axis(metric, max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02))
        charts += [_curve(report, family.name, family.unit, metric, y) for family in FAMILIES]
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
        _legend(report),
        page.grid(*charts),
        note=f"{first.measured.real} real and {first.measured.synthetic} synthetic images, drawn "
        "once for all detectors, each distorted after decoding and before it is brought to the "
        f"detector's input. Dotted: 0.5, chance.{lost}",
    )


def _curve(report: Report, family: str, unit: str, metric: str, y: Axis) -> Element:
    lines = []
    levels: list[str] = []
    for number, result in enumerate(report.results):
        points = result.robustness.get(family, [])
        levels = levels or [point.level for point in points]
        known = [
            (place, point.measured.metrics[metric])
            for place, point in enumerate(points)
            if metric in point.measured.metrics
        ]
        lines.append(
            Line(
                result.name,
                [float(place) for place, _found in known],
                [found.value for _place, found in known],
                [found.low for _place, found in known],
                [found.high for _place, found in known],
                hue=number,
                dots=True,
            )
        )
    x = named_axis(unit, levels)
    inside = y.low < 0.5 < y.high
    return line_chart(
        f"{family}: {metric}",
        f"{metric} at each level of distortion, {unit}.",
        x,
        y,
        lines,
        references=[((x.low, 0.5), (x.high, 0.5))] if inside else [],
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
        "intervals": f"bootstrap, {settings.rounds:,} resamples within each class, seed "
        f"{settings.seed}; Wilson's for shares of one class; DeLong's for differences in AUC",
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


def _interval(found: Interval | None, *, signed: bool = False) -> Element | str:
    if found is None:
        return "–"
    return page.interval(found.value, found.low, found.high, "+.3f" if signed else ".3f")


def _estimate(name: str, found: Interval, hue: int) -> Estimate:
    return Estimate(f"{name}: {found}", found.value, found.low, found.high, hue)


def _value(measured: Measured, metric: str) -> str:
    return f"{measured.metrics[metric].value:.3f}"


def _difference_axis(found: Sequence[Interval]) -> Axis:
    reach = max((max(abs(each.low), abs(each.high)) for each in found), default=0.0) or 1.0
    return linear_axis("", -reach, reach)
