"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell as text."""
    lines = [columns, *rows]
    head, *body = [f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |") for cells in lines]
    return "\n".join([head, f"|{'--|' * len(columns)}", *body])


def interval(values: Sequence[float]) -> str:
    """A value with its 95 % interval, [value, low, high]."""
    value, low, high = values
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def setting(record: Mapping[str, Any]) -> str:
    """On what, with what and at which commit something was measured: half a sentence."""
    machine, versions = record["machine"], record["versions"]
    features = ", ".join(machine["features"])
    return (
        f"{machine['cores']} cores of an {machine['cpu']} ({features}), OpenVINO "
        f"{versions['openvino']}, Python {versions['python']}, commit {record['commit']}"
    )
