"""A report as JSON, and as the tables of a terminal and of the README."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trtdet.benchmarks.evaluation_report import AP, AUC, BALANCED, BEST_BALANCED, Measured, Report
from trtdet.calibration.interval import Interval

_DIGITS = 6  # of a number in the record

_NUMBERS = re.compile(r"\[[-+.,\deE\s]+\]")

SHOWN = (AUC, AP, BALANCED, BEST_BALANCED)


def json_text(report: Report, run: Mapping[str, Any]) -> str:
    """All that was measured and `describe_run`'s facts; an interval is [value, low, high]."""
    text = json.dumps({**run, **_plain(asdict(report))}, indent=1)
    # Numbers side by side, or a curve takes a page.
    return _NUMBERS.sub(lambda found: " ".join(found[0].split()), text)


def show_p(p: float) -> str:
    """A p-value as it is printed."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_markdown(reports: Sequence[Report]) -> str:
    """A row for each detector and set, and one for each group of its formats."""
    lines = [
        f"| engine | files | real / synthetic | {' | '.join(SHOWN)} |",
        f"|--|--|--|{'--|' * len(SHOWN)}",
    ]
    for number, result in enumerate(reports[0].results):
        for report in reports:
            same = report.results[number]
            lines.append(_row(result.name, f"{report.data}, all", same.overall))
            lines += [
                _row(result.name, f"{report.data}, {group.name}", group.measured)
                for group in same.groups
                if group.kind == "format"
            ]
    return "\n".join(lines)


def _row(name: str, files: str, measured: Measured) -> str:
    cells = [str(measured.metrics.get(metric, "")) for metric in SHOWN]
    counts = f"{measured.real:,} / {measured.synthetic:,}"
    return f"| {name} | {files} | {counts} | {' | '.join(cells)} |"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == Interval.__dataclass_fields__.keys():
            return [_plain(each) for each in value.values()]
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return round(value, _DIGITS) or float(f"{value:.3g}")  # a p of 4e-7 is not 0
    return value
