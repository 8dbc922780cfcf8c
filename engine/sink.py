"""The output: one row per input row, in input order, whole or not there at all.

Failed rows stand in the output with an empty logit (or the number the user chose), and with their
reason in `<output>.errors.csv`, which exists only when a row failed. A Parquet file has a column
for it instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from trtdet.engine.atomic import atomic_bytes, atomic_text, check_writable, temporary_files
from trtdet.engine.parquet_sink import ParquetSink, check_parquet_output
from trtdet.engine.parquet_table import is_parquet
from trtdet.errors import InputError


class Sink(Protocol):
    """What takes the rows of a run."""

    @property
    def failures(self) -> int:
        """Rows without a score so far."""

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """One row: its logits, one per column, or the reason why there are none."""


class CsvSink:
    """Rows to an open CSV; reasons to a second CSV that is made when the first row fails."""

    def __init__(
        self,
        scores: IO[str],
        open_errors: Callable[[], IO[str]],
        columns: Sequence[str],
        failed_logit: float | None,
    ):
        self.failures = 0
        self._scores = scores
        self._open_errors = open_errors
        self._errors: IO[str] | None = None
        _write_row(scores, "filename", *columns)
        self._failed = ["" if failed_logit is None else repr(failed_logit)] * len(columns)

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """One row: its logits, one per column, or the reason why there are none."""
        if logits is not None:
            _write_row(self._scores, filename, *map(format_logit, logits))
            return
        self.failures += 1
        _write_row(self._scores, filename, *self._failed)
        if self._errors is None:
            self._errors = self._open_errors()
            _write_row(self._errors, "filename", "reason")
        _write_row(self._errors, filename, reason or "")


def format_logit(logit: np.float32) -> str:
    """The shortest decimal that reads back to the same float32."""
    return str(np.float32(logit))


def errors_path(output: Path) -> Path:
    """Where the reasons of failed rows go."""
    return output.with_name(output.name + ".errors.csv")


def leftovers(output: Path) -> list[Path]:
    """Temporary files of runs with this output that were killed, or that still write it."""
    return [left for path in _written(output) for left in temporary_files(path.parent, path.name)]


def reasons_path(output: Path) -> Path:
    """The file that has the reasons of failed rows: of a Parquet file, it is the output."""
    return output if is_parquet(output) else errors_path(output)


def _written(output: Path) -> list[Path]:
    """The files of a run with this output."""
    return [output] if is_parquet(output) else [output, errors_path(output)]


def check_output(target: str, source: str, failed_logit: float | None = None) -> None:
    """Raise InputError if `target` cannot be written, or is the input. Touches neither."""
    if target == "-":
        return
    path = Path(target)
    if is_parquet(path):
        check_parquet_output(failed_logit)
    try:
        _check_path(path, source)
        for written in _written(path):
            check_writable(written)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _check_path(path: Path, source: str) -> None:
    if path.is_dir():
        raise InputError(f"the output {path} is a folder: give a file, say {path}/scores.csv")
    if path.exists() and not path.is_file():  # a rename would put a file in the device's place
        raise InputError(f"the output {path} is no regular file: use - for standard output")
    if not path.parent.is_dir():
        raise InputError(f"the output's folder {path.parent} does not exist: make it first")
    for written in _written(path):
        if written.exists() and not written.is_file():
            raise InputError(f"{written} is in the way: failed rows are listed there")
        if written.exists() and _is_input(written, source):
            raise InputError(f"the output {path} would overwrite the input: give another name")


@contextmanager
def open_sink(
    target: str, failed_logit: float | None, columns: Sequence[str] = ("logit",)
) -> Iterator[Sink]:
    """A sink for the file `target`, CSV or Parquet by its name.

    `-` is CSV to standard output, with the reasons on standard error. Files appear when the block
    ends well. When it does not, whatever stood there before stays.
    """
    path = Path(target)
    if target == "-":
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="surrogateescape", newline=""
        )
        yield CsvSink(sys.stdout, lambda: sys.stderr, columns, failed_logit)
        sys.stdout.flush()
    elif is_parquet(path):
        with atomic_bytes(path) as file, ParquetSink(file, columns, failed_logit) as sink:
            yield sink
    else:
        with _open_csv_sink(path, failed_logit, columns) as sink:
            yield sink


@contextmanager
def _open_csv_sink(
    path: Path, failed_logit: float | None, columns: Sequence[str]
) -> Iterator[CsvSink]:
    with ExitStack() as stack:

        def open_errors() -> IO[str]:
            return stack.enter_context(atomic_text(errors_path(path)))

        scores = stack.enter_context(atomic_text(path))
        sink = CsvSink(scores, open_errors, columns, failed_logit)
        yield sink
    if sink.failures == 0:  # the reasons of an earlier run are not this one's
        errors_path(path).unlink(missing_ok=True)


def _is_input(path: Path, source: str) -> bool:
    """Whether `path` is the file that the table is read from, standard input included."""
    try:
        status = os.fstat(sys.stdin.fileno()) if source == "-" else Path(source).stat()
    except (OSError, ValueError):
        return False
    return os.path.samestat(status, path.stat())


def _write_row(file: IO[str], *fields: str) -> None:
    """One CSV line. Not `csv.writer`: before Python 3.13 it leaves a carriage return unquoted."""
    file.write(",".join(map(_quoted, fields)) + "\n")


def _quoted(field: str) -> str:
    if any(character in field for character in ',"\r\n'):
        return '"' + field.replace('"', '""') + '"'
    return field
