"""What a run on a GPU finds, on disk after every row: `gpu.json`, and the page `gpu.md`.

A row is one measurement. It has values, or the exact reason why it has none. The row that is being
measured is noted before it starts, so that whoever finds a dead process knows what killed it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trtdet.engine.atomic import atomic_text

JSON, PAGE = "gpu.json", "gpu.md"

# ok: measured; wrong: measured, and not what it has to be; failed: it broke; skipped: not tried
Status = Literal["ok", "wrong", "failed", "skipped"]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    status: Status
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    reason: str = ""  # why it is not ok


@dataclass
class SectionRecord:
    """The rows of one section."""

    title: str
    rows: list[Row] = field(default_factory=list)
    running: str = ""  # the row that is being measured
    reason: str = ""  # why the section did not run, or not to its end
    seconds: float = 0.0

    def find(self, name: str) -> Row | None:
        """The row called `name`."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def outcome(self) -> str:
        """In a few words."""
        if not self.rows:
            return "did not run"
        counts = dict.fromkeys(("ok", "wrong", "failed", "skipped"), 0)
        for row in self.rows:
            counts[row.status] += 1
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"{said}, not to its end" if self.reason else said


class Record:
    """The results in `folder`; what an earlier run left there is kept until it is measured again.

    Raises OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.about: dict[str, Any] = {}
        self.sections: dict[str, SectionRecord] = {}
        try:
            found = json.loads((folder / JSON).read_text(encoding="utf-8"))
            self.about = found["about"]
            self.sections = {name: _section(each) for name, each in found["sections"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or not ours
            folder.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str, title: str) -> SectionRecord:
        """A section without rows, in its old place if it had one."""
        self.sections[name] = SectionRecord(title)
        self.save()
        return self.sections[name]

    def save(self) -> None:
        """Write both files, each whole or not at all."""
        sections = {name: asdict(each) for name, each in self.sections.items()}
        content = _plain({"about": self.about, "sections": sections})
        with atomic_text(self.folder / JSON) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        with atomic_text(self.folder / PAGE) as file:
            file.write(as_page(self))

    @property
    def wrong(self) -> list[str]:
        """The rows that were measured, and are not what they have to be."""
        return [
            f"{name}: {row.name}"
            for name, section in self.sections.items()
            for row in section.rows
            if row.status == "wrong"
        ]


def as_page(record: Record) -> str:
    """The results as Markdown: a table of the sections, then a table of rows for each."""
    lines = ["# trtdet on a GPU", ""]
    lines += [f"- {name}: {_cell(value)}" for name, value in record.about.items()]
    lines += ["", "| section | outcome | seconds |", "|--|--|--|"]
    for section in record.sections.values():
        lines.append(f"| {section.title} | {section.outcome} | {section.seconds:.0f} |")
    for name, section in record.sections.items():
        lines += ["", f"## {section.title} (`{name}`)", ""]
        if section.reason:
            lines += [f"**{section.outcome}**: {_cell(section.reason)}", ""]
        if section.rows:
            lines += ["| row | | found |", "|--|--|--|"]
        for row in section.rows:
            found = [_cell(row.reason)] if row.reason else []
            found += [
                f"{_cell(key)} {_cell(value)}" for key, value in row.values.items() if value != {}
            ]
            lines.append(f"| {row.name} | {row.status} | {'; '.join(found)} |")
    return "\n".join(lines) + "\n"


def _section(content: Mapping[str, Any]) -> SectionRecord:
    rows = [Row(**row) for row in content["rows"]]
    return SectionRecord(**{**content, "rows": rows})


def _plain(value: Any) -> Any:
    """JSON has neither numpy's numbers nor NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _cell(value: Any) -> str:
    """On one line, in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return " ".join(str(value).split()).replace("|", "\\|")
