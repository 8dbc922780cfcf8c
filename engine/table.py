"""The input table: a CSV with a column `filename`, read as a stream, checked before any image is.

The table is read twice: once to check every line and to count the rows, once to hand them out.
Memory therefore depends on the longest line, not on the number of rows.
"""

from __future__ import annotations

import codecs
import csv
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from trtdet.errors import InputError

COLUMN = "filename"

# A longer field is a quote that was never closed, and has swallowed the rows after it.
MAX_FIELD_CHARS = 1 << 17


@dataclass(frozen=True)
class Row:
    """One row of the input, in the order of the file."""

    index: int  # from 0, header and blank lines not counted
    filename: str  # as the table spells it


@dataclass(frozen=True)
class Table:
    """An input CSV that was read through once and found in order."""

    path: Path  # the file to read: the user's, or the spooled copy of standard input
    folder: Path  # relative names resolve against it
    column: int  # position of `filename`
    row_count: int

    def rows(self) -> Iterator[Row]:
        """Every row, one at a time."""
        try:
            for index, fields in enumerate(_data_lines(self.path)):
                yield Row(index, fields[self.column] if len(fields) > self.column else "")
        except csv.Error as error:  # it was well-formed when it was checked
            raise InputError(f"{self.path} changed while it was read: {error}") from error

    def resolve(self, row: Row) -> Path:
        """The image's path: absolute as it is, else relative to the table's folder."""
        return self.folder / row.filename


@contextmanager
def open_table(source: str, stdin: BinaryIO) -> Iterator[Table]:
    """Check the CSV `source` and open it. `-` reads `stdin`.

    What has no folder of its own (standard input, a pipe) is relative to the working folder.
    Raises InputError when it cannot be read, is not UTF-8 CSV, or has no column `filename`.
    """
    path = Path(source)
    with ExitStack() as stack:
        if source == "-":
            yield _check(_spooled(stdin, stack), Path.cwd(), "standard input")
        elif path.exists() and not path.is_file() and not path.is_dir():  # a pipe is read once only
            pipe = stack.enter_context(path.open("rb"))
            yield _check(_spooled(pipe, stack), Path.cwd(), source)
        else:
            yield _check(path, path.parent, source)


def _spooled(stream: BinaryIO, stack: ExitStack) -> Path:
    """A temporary copy of what can be read only once."""
    copy = tempfile.NamedTemporaryFile(prefix="trtdet-", suffix=".csv")  # noqa: SIM115 - `stack`
    stack.enter_context(copy)
    shutil.copyfileobj(stream, copy)
    copy.flush()
    return Path(copy.name)


def _check(path: Path, folder: Path, name: str) -> Table:
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{name} is UTF-16: save it as CSV in UTF-8")
        header = next(_lines(path), None)
        if header is None:
            raise InputError(f"{name} is empty: its first line must name a column '{COLUMN}'")
        names = [field.strip() for field in header]
        if COLUMN not in names:
            found = ", ".join(repr(field) for field in names[:8])
            raise InputError(
                f"{name} has no column '{COLUMN}' (its first line gives {found}): "
                f"name the column of image paths '{COLUMN}', and separate columns with commas"
            )
        return Table(path, folder, names.index(COLUMN), sum(1 for _ in _data_lines(path)))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(
            f"{name} is not a well-formed CSV: {error} (a name that contains a quote, a comma or "
            "a line break is written in double quotes, with its own quotes doubled)"
        ) from error


def _data_lines(path: Path) -> Iterator[list[str]]:
    lines = _lines(path)
    next(lines, None)
    return lines


def _lines(path: Path) -> Iterator[list[str]]:
    """Every line that is not blank, as fields. Raises csv.Error with the line's number."""
    # utf-8-sig drops a byte order mark; surrogateescape keeps names that are not UTF-8 as they are.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _parse(file)


def _parse(file: IO[str]) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(file, strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from error
        if fields is None:
            return
        if fields and not (len(fields) == 1 and fields[0].isspace()):  # a blank line is no row
            yield fields
