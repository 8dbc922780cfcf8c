"""What fewer bits cost a bundle, as a table."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trtdet.engine.bundle import Bundle


PIPED_WIDTH = 200  # columns: no line is folded for who greps it


def show_precision(bundle: Bundle, *, as_json: bool) -> None:
    """Print the bundle's precision report."""
    from rich.console import Console
    from rich.table import Table

    report = bundle.precision_report
    if as_json:
        click.echo(json.dumps({"name": bundle.name, **report}, indent=2, ensure_ascii=False))
        return
    if not report:
        click.echo(f"{bundle.name} is {bundle.precision}, the network as it is")
        return
    images = report["images"]
    kind = "generated images" if images["generated"] else "images"
    click.echo(f"{bundle.name}, {bundle.precision}: {report['verdict']}; {report['gpu']}")
    click.echo(
        f"measured on {images['gate']} {kind} with {report['backend']}, calibrated on "
        f"{images['calibration']} others by {report['method']}"
    )
    if images.get("stand_in"):
        click.echo(f"generated images: {images['stand_in']}")
    if bundle.precision == "int8":
        click.echo(
            f"{report['layers_in_8_bits']} layers in 8 bits; kept in float16: "
            + (", ".join(report["kept_in_float16"]) or "no group")
        )
    table = Table(box=None)
    for column in ("precision", "logit", "|d| max", "p99 / dev", "mean / dev", "flips", "rank",
                   "AUC", "balanced acc.", "images/s"):  # fmt: skip
        table.add_column(column)
    for precision, outputs in report["compared"].items():
        for name, one in outputs.items():
            rate = report["images_per_s"].get(precision)
            table.add_row(precision, name, *_cells(one), f"{rate:.3g}" if rate else "")
    for precision, rate in report["images_per_s"].items():
        if precision not in report["compared"]:
            table.add_row(precision, *[""] * 8, f"{rate:.3g}")
    Console(
        highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH
    ).print(table)
    for group, error in report["sensitivity"].items():
        click.echo(f"{error:8.4f} deviations with {group} alone in 8 bits")


def _cells(one: dict[str, Any]) -> list[str]:
    """A comparison's figures; of AUC and balanced accuracy the reference's, then the engine's."""
    pairs = [one["auc"], one["balanced_accuracy"]]
    return [
        _number(one["largest"]),
        f"{_number(one['p99']['value'])} [{_number(one['p99']['low'])}, "
        f"{_number(one['p99']['high'])}]",
        _number(one["mean"]["value"]),
        f"{one['flips']['value']:.1%} [{one['flips']['low']:.1%}, {one['flips']['high']:.1%}]",
        f"{one['rank_correlation']:.5f}",
        *(f"{pair[0]:.4f}, {pair[1]:.4f}" if pair else "" for pair in pairs),
    ]


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.3g}"
