"""The tables of README.md and docs/, each made of the JSON that it shows.

    python -m trtdet.benchmarks.tables [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what stands between them is
replaced. `--check` changes nothing, and exits with 1 where a table and its JSON disagree. A table
whose results are not there says which command measures them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trtdet.benchmarks import accuracy_tables, command_tables, peer_tables, speed_tables
from trtdet.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Results = Mapping[str, Any]  # by the name of the file, without .json
Render = Callable[[Results], str]

TABLES: dict[str, Render] = {
    **accuracy_tables.TABLES,
    **speed_tables.TABLES,
    **command_tables.TABLES,
    "peers": peer_tables.peers,
    "peers-network": peer_tables.peers_network,
    "peers-batches": peer_tables.peers_batches,
}

_PLACE = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n(?P<table>.*?)<!-- end -->", re.DOTALL)


class _Loaded(dict[str, Any]):
    """Results, read when a table asks for them; of a folder all of its files, by name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> Any:
        folder = self._folder / name
        if folder.is_dir():
            self[name] = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
        else:
            self[name] = _read(self._folder / f"{name}.json")
        return self[name]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1")
    options = parser.parse_args(arguments)
    stale = []
    for page in pages(ROOT):
        text = page.read_text(encoding="utf-8")
        fresh = with_tables(text, RESULTS)
        if fresh != text:
            stale.append(page)
            if not options.check:
                page.write_text(fresh, encoding="utf-8")
    for page in stale:
        print(
            page.relative_to(ROOT), "is out of date" if options.check else "was brought up to date"
        )
    return 1 if options.check and stale else 0


def pages(root: Path) -> list[Path]:
    """Where tables may stand."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def with_tables(text: str, folder: Path) -> str:
    """A page with every table made again from the results in `folder`.

    Raises InputError for a table that nobody can make.
    """
    results = _Loaded(folder)

    def made(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in TABLES:
            raise InputError(f"no table is called '{name}': there is {', '.join(sorted(TABLES))}")
        try:
            table = TABLES[name](results)
        except FileNotFoundError as error:
            table = f"*Not measured yet: {Path(error.filename).name} is not there.*"
        return f"<!-- table: {name} -->\n{table.rstrip()}\n<!-- end -->"

    if text.count("<!-- table:") != len(_PLACE.findall(text)):
        raise InputError("a table has no end: each stands before a line <!-- end -->")
    return _PLACE.sub(made, text)


if __name__ == "__main__":
    sys.exit(main())
