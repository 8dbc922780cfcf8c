"""The input: rows that name images, checked before any image is read.

    table.csv        a CSV in UTF-8 with a column `filename`; `-` is one on standard input
    table.parquet    a Parquet file with such a column
    photos           a folder: the images in it
    'photos/*.jpg'   a pattern: the files that match it

The table is read twice: once to check and count its rows, once to hand them out. Memory therefore
depends on the longest row, not on their number. What a folder or a pattern gives is written down
first, so that both times, and a run that goes on with `--resume`, see the same rows.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from trtdet.engine import csv_table, parquet_table
from trtdet.engine.confine import Confined
from trtdet.engine.csv_table import COLUMN
from trtdet.engine.listing import is_listed, list_names
from trtdet.errors import InputError


@dataclass(frozen=True)
class Row:
    """One row of the input, in its order."""

    index: int  # from 0, header and blank lines not counted
    filename: str  # as the table spells it


@dataclass(frozen=True)
class Table:
    """An input that was read through once and found in order."""

    path: Path  # the file to read: the user's, or a temporary copy
    folder: Path  # relative names resolve against it
    root: Path | None  # names cannot lead out of it, where there is one; then it is the folder
    kind: str  # what a journal calls it
    row_count: int
    names: Callable[[], Iterator[str]]

    def rows(self) -> Iterator[Row]:
        """Every row, one at a time. Raises InputError where the file has changed."""
        return (Row(index, name) for index, name in enumerate(self.names()))

    def resolve(self, row: Row) -> Path | Confined:
        """What `read_image_file` reads: an absolute path, or one relative to the table's folder."""
        return Confined(self.root, row.filename) if self.root else self.folder / row.filename


@contextmanager
def open_table(
    source: str, stdin: BinaryIO, *, root: Path | None = None, output: str = "-"
) -> Iterator[Table]:
    """Check the input `source` and open it. `-` reads `stdin`.

    Names are relative to the folder of the CSV or Parquet file; to the folder that is listed; to
    the working folder for a pattern, standard input and a pipe; and with a `root` to that, always.
    What is listed leaves out the run's own `output`.

    Raises InputError when it cannot be read, has no column `filename`, or lists nothing.
    """
    path, folder, kind, shown = Path(source), Path.cwd(), "input", source
    count_names, read_names = csv_table.count_names, csv_table.read_names
    with ExitStack() as stack:
        if source == "-":
            path, shown = _spooled(stdin, stack), "standard input"
        elif is_listed(source):
            folder, kind = path if path.is_dir() else folder, "files found"
            own = None if output == "-" else Path(output)
            path = _written_down(list_names(source, root, own), stack)
        else:
            if parquet_table.is_parquet(path):
                count_names, read_names = parquet_table.count_names, parquet_table.read_names
            if path.exists() and not path.is_file():  # a pipe is read once only
                path = _spooled_pipe(path, stack)
            else:
                folder = path.parent
        row_count = count_names(path, shown)
        names = partial(read_names, path, shown)
        yield Table(path, root or folder, root, kind, row_count, names)


def _spooled_pipe(path: Path, stack: ExitStack) -> Path:
    try:
        with path.open("rb") as file:
            if not (path.is_fifo() or file.isatty()):  # /dev/zero has no end
                raise InputError(f"{path} is a device: give a CSV, a Parquet file or a folder")
            return _spooled(file, stack)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _spooled(stream: BinaryIO, stack: ExitStack) -> Path:
    """A temporary copy of what can be read only once."""
    copy = tempfile.NamedTemporaryFile(prefix="trtdet-")  # noqa: SIM115 - `stack`
    stack.enter_context(copy)
    shutil.copyfileobj(stream, copy)
    copy.flush()
    return Path(copy.name)


def _written_down(names: Iterator[str], stack: ExitStack) -> Path:
    """A temporary CSV of these names."""
    copy = tempfile.NamedTemporaryFile(  # noqa: SIM115 - `stack`
        "w", prefix="trtdet-", encoding="utf-8", errors="surrogateescape", newline=""
    )
    stack.enter_context(copy)
    writer = csv.writer(copy, quoting=csv.QUOTE_ALL)
    # The second column is empty. Without it a name of spaces would look like a blank line.
    writer.writerow((COLUMN, ""))
    writer.writerows((name, "") for name in names)
    copy.flush()
    return Path(copy.name)
