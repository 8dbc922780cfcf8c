"""The rows of a Ray job: an input table, numbered and written out as Parquet that all nodes read.

A row's number is its place in the input, from 0. Ray Data keeps no order and marks what is done by
a column of the rows themselves, so both need the number to be there before the first row is read.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from trtdet.engine.csv_table import COLUMN
from trtdet.engine.locations import is_url, local_path, open_filesystem
from trtdet.engine.table import Table, open_table
from trtdet.errors import InputError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

INDEX = "index"


@dataclass(frozen=True)
class Rows:
    """A job's input: a table, and the folder or URL that its names are relative to."""

    table: Table
    folder: str

    @property
    def count(self) -> int:
        """How many there are."""
        return self.table.row_count

    def encoded(self) -> Iterator[bytes]:
        """The file names, in order."""
        return map(os.fsencode, self.table.names())

    def sha256(self) -> str:
        """Of all names."""
        digest = sha256()
        for name in self.encoded():
            digest.update(b"%d:%b" % (len(name), name))
        return digest.hexdigest()


@contextmanager
def open_rows(source: str, output: str) -> Iterator[Rows]:
    """The rows of whatever `open_table` reads, or of a CSV or Parquet file behind an URL.

    Raises InputError where it cannot be read.
    """
    with ExitStack() as stack:
        path, folder = local_path(source), None
        if is_url(source):
            path, folder = _fetched(source, stack), source.rpartition("/")[0]
        table = stack.enter_context(open_table(path, sys.stdin.buffer, output=output))
        yield Rows(table, folder or str(table.folder.absolute()))


def _fetched(url: str, stack: ExitStack) -> str:
    filesystem, path = open_filesystem(url)
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trtdet-"))) / "input"
    copy = copy.with_suffix(Path(path).suffix)
    try:
        with filesystem.open_input_stream(path) as file, copy.open("wb") as written:
            shutil.copyfileobj(file, written)
    except OSError as error:
        raise InputError(f"cannot read {url}: {error.strerror or error}") from error
    return str(copy)


def write_rows(rows: Rows, filesystem: FileSystem, folder: str, rows_per_file: int) -> None:
    """Write `index` (int64) and `filename` (binary) as `folder`/*.parquet, so many rows each."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    filesystem.create_dir(folder, recursive=True)
    names = rows.encoded()
    for number, first in enumerate(range(0, rows.count, rows_per_file)):
        some = list(itertools.islice(names, rows_per_file))
        index = pa.array(range(first, first + len(some)), pa.int64())
        table = pa.table({INDEX: index, COLUMN: pa.array(some, pa.binary())})
        write_table(table, f"{folder}/rows-{number:06}.parquet", filesystem=filesystem)
