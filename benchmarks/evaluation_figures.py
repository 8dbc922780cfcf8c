"""An evaluation's charts."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

from trtdet.benchmarks.charts import Axis, Line, Mark, line_chart, linear_axis, named_axis
from trtdet.benchmarks.evaluation_report import AUC, BALANCED, Report, Result
from trtdet.calibration.distortions import FAMILIES

_DIAGONAL = (((0.0, 0.0), (1.0, 1.0)),)
_REAL, _SYNTHETIC = 6, 7  # hues


def roc(report: Report) -> Element:
    """All detectors' curves, and on each where logit 0 lies."""
    lines, marks = [], []
    for number, result in enumerate(report.results):
        curve = result.roc
        lines.append(Line(result.name, curve.false_positives, curve.true_positives, hue=number))
        false, true = curve.at_zero
        title = f"{result.name} at logit 0: {true:.3f} found, {false:.3f} false alarms"
        marks.append(Mark(false, true, title, number))
    areas = ", ".join(
        f"{each.name} {each.overall.metrics[AUC].value:.3f}" for each in report.results
    )
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


def histogram(result: Result) -> Element:
    """Both classes' logits, as shares of each, so that classes of different sizes compare."""
    found = result.histogram
    lines, largest = [], 0.0
    for name, counts, hue in (
        ("real", found.real, _REAL),
        ("synthetic", found.synthetic, _SYNTHETIC),
    ):
        shares = [100.0 * count / sum(counts) for count in counts]
        largest = max(largest, *shares)
        # A step for each bin: up at its left edge, along, and down at its right one.
        x = [edge for edge in found.edges for _side in range(2)]
        y = [0.0, *(share for share in shares for _side in range(2)), 0.0]
        lines.append(Line(name, x, y, hue=hue, area=True, plain=True))
    return line_chart(
        f"{result.name}: logits",
        "Histogram of the logits of real and of synthetic images.",
        linear_axis("logit", found.edges[0], found.edges[-1]),
        linear_axis("percent of the class", 0.0, largest * 1.05, ticks=4),
        lines,
        references=[((0.0, 0.0), (0.0, largest * 1.05))],
        note="grey: real images; red: synthetic ones",
    )


def reliability(result: Result) -> Element:
    """The share of synthetic images in each bin of probability, with its interval."""
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
        f"{result.name}: reliability",
        "Share of synthetic images against the probability that the logit stands for.",
        linear_axis("probability of being synthetic", 0.0, 1.0),
        linear_axis("share that is synthetic", 0.0, 1.0),
        [],
        marks=marks,
        references=_DIAGONAL,
        note=f"expected calibration error {result.calibration_error:.3f}",
    )


def curves(report: Report) -> list[Element]:
    """AUC, then balanced accuracy, under each family of distortions, on one scale each."""
    charts = []
    for metric in (AUC, BALANCED):
        found = [
            point.measured.metrics[metric]
            for result in report.results
            for points in result.robustness.values()
            for point in points
            if metric in point.measured.metrics
        ]
        if not found:  # the images of one class cannot be distorted, at any level
            continue
        low, high = min(each.low for each in found), max(each.high for each in found)
        y = linear_axis(metric, max(0.0, low - 0.02), min(1.0, high + 0.02))
        charts += [_curve(report, family.name, family.unit, metric, y) for family in FAMILIES]
    return charts


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
