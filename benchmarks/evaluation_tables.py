"""An evaluation's tables on its page."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from trtdet.benchmarks import page
from trtdet.benchmarks.charts import Axis, Estimate, legend, linear_axis, strip
from trtdet.benchmarks.evaluation_record import show_p
from trtdet.benchmarks.evaluation_report import (
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
from trtdet.benchmarks.groups import SOURCE
from trtdet.calibration.interval import Interval

_SHARE = linear_axis("", 0.0, 1.0)


def overall(report: Report) -> Element:
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
        hues(report),
        page.table(columns, rows, drawings=1),
        note="Accuracies are at logit 0, but for the best ones, whose threshold was chosen on "
        "these very images: they flatter, and say what another decision could win.",
    )


def _metric_row(name: str, found: Sequence[Interval | None]) -> list[page.Content]:
    estimates = [_estimate(name, each, hue) for hue, each in enumerate(found) if each]
    return [name, *map(_interval, found), strip(_SHARE, estimates, reference=0.5)]


def hues(report: Report) -> Element | None:
    """The detectors' hues, where there are several."""
    if len(report.results) == 1:
        return None
    return legend([(result.name, number) for number, result in enumerate(report.results)])


def comparisons(report: Report) -> Element:
    """A row for each pair."""
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
        "the interval is a paired bootstrap's, p an exact paired test's. Both p are Holm's, "
        f"corrected for {len(report.comparisons)} comparisons.",
    )


def groups(report: Report, kind: str, heading: str, note: str) -> Element | None:
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
        hues(report),
        page.table([*columns, f"{shown}, 0 to 1"], rows, drawings=1),
        note=note,
    )


def _column(report: Report, result: Result, metric: str) -> str:
    return metric if len(report.results) == 1 else result.name


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
