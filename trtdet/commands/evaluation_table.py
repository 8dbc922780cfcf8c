"""What an evaluation found, as tables on standard output."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from trtdet.benchmarks.evaluation_record import SHOWN, show_p
from trtdet.benchmarks.evaluation_report import ACCURACY, AUC, BALANCED, Report, group_names
from trtdet.benchmarks.groups import FORMAT, GENERATOR, SOURCE

PIPED_WIDTH = 200  # columns


def show_evaluation(report: Report) -> None:
    """The numbers that matter most; the page and the JSON have all of them."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    console = Console(highlight=False, markup=False, width=width)
    console.print(f"{report.counted}: {report.data}", soft_wrap=True)
    tables = [_overall(report), *(_groups(report, kind) for kind in (GENERATOR, SOURCE, FORMAT))]
    for table in (*tables, _differences(report)):
        if table.row_count:
            console.print("\n", table, sep="")


def _overall(report: Report) -> Table:
    cup = any(result.cup for result in report.results)
    table = _table("detector", [*SHOWN, "ECE", "not scored", *["cup score"] * cup])
    for result in report.results:
        metrics = [str(result.overall.metrics[name]) for name in SHOWN]
        metrics += [f"{result.calibration_error:.3f}", f"{result.failed:,}"]
        if cup:
            metrics.append(str(result.cup.score) if result.cup else "–")
        table.add_row(result.name, *metrics)
    return table


def _groups(report: Report, kind: str) -> Table:
    shown = ACCURACY if kind == SOURCE else AUC  # a source may have images of one class only
    heads = ["real / synthetic", *(f"{each.name}, {shown}" for each in report.results)]
    table = _table(kind, heads)
    for name in group_names(report.results, kind):
        same = [
            group.measured
            for result in report.results
            for group in result.groups
            if (group.kind, group.name) == (kind, name)
        ]
        cells = [str(each.metrics.get(shown, "–")) for each in same]
        shown_name = name.encode("utf-8", "backslashreplace").decode()  # it may be no UTF-8
        table.add_row(shown_name, f"{same[0].real:,} / {same[0].synthetic:,}", *cells)
    return table


def _differences(report: Report) -> Table:
    table = _table("difference", [AUC, "p (DeLong, Holm)", BALANCED, "p (exact, Holm)"])
    for each in report.comparisons:
        auc = [str(each.auc.value), show_p(each.auc_holm)]
        accuracy = [str(each.accuracy.value), show_p(each.accuracy_holm)]
        table.add_row(f"{each.first} - {each.second}", *auc, *accuracy)
    return table


def _table(first: str, numbers: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
