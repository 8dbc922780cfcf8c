"""A CSV's column `filename`, read as a stream.

Memory depends on the longest row, and that is limited: what is longer is no table.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trtdet.errors import InputError

COLUMN = "filename"

# A longer field is a quote that was never closed, and has swallowed the rows after it.
MAX_FIELD_CHARS = 1 << 17

# A longer row is a file without line breaks, or one of quoted line breaks alone.
MAX_ROW_CHARS = 1 << 24


def count_names(path: Path, shown: str) -> int:
    """Read every row of the CSV `path`, that messages call `shown`. Returns how many there are.

    Raises InputError when it cannot be read, is not UTF-8 CSV, or has no column `filename`.
    """
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{shown} is UTF-16: save it as CSV in UTF-8")
        rows = _rows(path)
        _find_column(next(rows, None), shown)
        return sum(1 for _ in rows)
    except OSError as error:
        raise InputError(f"cannot read {shown}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(
            f"{shown} is not a well-formed CSV: {error} (a name that contains a quote, a comma or "
            "a line break is written in double quotes, with its own quotes doubled)"
        ) from error


def read_names(path: Path, shown: str) -> Iterator[str]:
    """Every row's name, one at a time; "" where a row ends before the column."""
    try:
        rows = _rows(path)
        column = _find_column(next(rows, None), shown)
        for fields in rows:
            yield fields[column] if len(fields) > column else ""
    except (OSError, csv.Error) as error:  # it was well-formed when it was checked
        raise InputError(f"{shown} changed while it was read: {error}") from error


def _find_column(header: list[str] | None, shown: str) -> int:
    if header is None:
        raise InputError(f"{shown} is empty: its first line must name a column '{COLUMN}'")
    names = [field.strip() for field in header]
    if COLUMN not in names:
        found = ", ".join(repr(field[:40]) for field in names[:8])
        raise InputError(
            f"{shown} has no column '{COLUMN}' (its first line gives {found}): "
            f"name the column of image paths '{COLUMN}', and separate columns with commas"
        )
    return names.index(COLUMN)


def _rows(path: Path) -> Iterator[list[str]]:
    """Every row that is not blank, as fields. Raises csv.Error with the line's number."""
    # utf-8-sig drops a byte order mark; surrogateescape keeps names that are not UTF-8 as they are.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _parse(file)


def _parse(file: IO[str]) -> Iterator[list[str]]:
    room = MAX_ROW_CHARS  # what the row may still take

    def lines() -> Iterator[str]:
        nonlocal room
        while line := file.readline(room + 1):
            room -= len(line)
            if room < 0:
                raise csv.Error(f"the row has more than {MAX_ROW_CHARS:,} characters")
            yield line

    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(lines(), strict=True)
    while True:
        room = MAX_ROW_CHARS
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from error
        if fields is None:
            return
        if fields and not (len(fields) == 1 and fields[0].isspace()):  # a blank line is no row
            yield fields
