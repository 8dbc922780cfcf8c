"""`trtdet inspect`: what a bundle is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any

import click

INTERVALS = ("AUC", "balanced accuracy")  # entries of a card: value, then its 95 % interval
PIPED_WIDTH = 200  # columns: a hash is not folded for who greps it


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@click.option("--precision", is_flag=True, help="Show only what fewer bits cost, as a table.")
@click.option("--json", "as_json", is_flag=True, help="Print the record and the card as JSON.")
def command(bundle: str | None, precision: bool, as_json: bool) -> None:
    """Show the record of BUNDLE: a name in the store, a folder, or the default engine.

    \b
    Example:
      trtdet inspect starter
      trtdet inspect --json starter
      trtdet inspect --precision rine-int8
    """
    import json

    from trtdet.engine.bundle import load_card
    from trtdet.engine.ensemble import Ensemble, members_of, open_any
    from trtdet.engine.store import find_bundle

    opened = open_any(find_bundle(bundle))
    if precision:
        from trtdet.commands.precision_table import show_precision

        for each in members_of(opened):
            show_precision(each, as_json=as_json)
        return
    if isinstance(opened, Ensemble):
        record = opened.to_json()
        if as_json:
            click.echo(json.dumps(record, indent=2, ensure_ascii=False))
        else:
            members = {member.name: str(member.path) for member in opened.members}
            _show({**record, "members": members, "path": str(opened.path)}.items())
        return
    if as_json:
        card = load_card(opened)
        record = {**opened.to_json(), **({"card": card} if card else {})}
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    plans = sorted(path.name for path in opened.plans.glob("*.plan"))
    _show(
        {
            **{key: value for key, value in opened.to_json().items() if key != "precision_report"},
            "geometry": str(opened.geometry),
            "outputs": ", ".join(opened.outputs),
            "plans": "\n".join(plans) or "none: see `trtdet compile --help`",
            "path": str(opened.path),
            "card": load_card(opened),
            "precision report": opened.precision_report.get("verdict", ""),
        }.items()
    )


def _show(entries: Iterable[tuple[str, Any]]) -> None:
    """A table of names and values; what has no value is left out."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in entries:
        for name, text in _lines(key.replace("_", " "), value):
            table.add_row(name, text)
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(highlight=False, markup=False, width=width).print(table)


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    """A record's entry as rows: one for a plain value, one for each entry of a nested one."""
    if isinstance(value, dict):
        parts = [_lines(f"{key}: {inner}", part) for inner, part in value.items()]
        return list(itertools.chain.from_iterable(parts))
    if isinstance(value, list) and key.endswith(INTERVALS):
        middle, low, high = value
        return [(key, f"{middle} [{low}, {high}]")]
    return [(key, str(value))] if value not in ("", None) else []
