"""The output as Parquet: names, a float32 for each logit, and the reason of a row that has none.

    filename   string; bytes that are not UTF-8 stand as \\xNN, because a string cannot hold them
    <logit>    float32, one for each column; null in a failed row, or the number the user chose
    reason     string; null where the row has a score

The bytes depend on the rows, and on pyarrow's version: row groups end at fixed places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO

import numpy as np

from trtdet.engine.csv_table import COLUMN
from trtdet.engine.parquet_table import import_parquet
from trtdet.errors import InputError

REASON = "reason"

# A row group, which is kept in memory until it is written, ends at the first of these.
ROWS_PER_GROUP = 1 << 16
CHARS_PER_GROUP = 1 << 24


class ParquetSink:
    """Rows to an open file: a context manager, which brings the Parquet file to its end."""

    def __init__(self, file: IO[bytes], columns: Sequence[str], failed_logit: float | None):
        parquet = import_parquet()
        import pyarrow

        self.failures = 0
        failed = None if failed_logit is None else np.float32(failed_logit)
        self._failed = [failed] * len(columns)
        logits = [(column, pyarrow.float32()) for column in columns]
        self._schema = pyarrow.schema(
            [(COLUMN, pyarrow.string()), *logits, (REASON, pyarrow.string())]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, use_dictionary=[REASON])
        self._clear()

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """One row: its logits, one per column, or the reason why there are none."""
        if logits is None:
            self.failures += 1
            reason = reason or ""
        else:
            reason = None
        self._names.append(_text(filename))
        self._logits.append(self._failed if logits is None else list(logits))
        self._reasons.append(None if reason is None else _text(reason))
        self._chars += len(filename) + len(reason or "")
        if len(self._names) >= ROWS_PER_GROUP or self._chars >= CHARS_PER_GROUP:
            self._write_group()

    def __enter__(self) -> ParquetSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._write_group()
            self._writer.close()
            return
        with suppress(Exception):  # the file goes; an open writer would complain of it later
            self._writer.close()

    def _write_group(self) -> None:
        import pyarrow

        columns = [self._names, *zip(*self._logits, strict=True), self._reasons]
        if self._names:
            arrays = map(pyarrow.array, columns, self._schema.types)
            self._writer.write_batch(
                pyarrow.record_batch(list(arrays), schema=self._schema), ROWS_PER_GROUP
            )
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._logits: list[Sequence[np.float32 | None]] = []
        self._reasons: list[str | None] = []
        self._chars = 0


def check_parquet_output(failed_logit: float | None) -> None:
    """Raise InputError where no Parquet can be written, or not with this number."""
    import_parquet()
    if failed_logit is not None and abs(failed_logit) > float(np.finfo(np.float32).max):
        raise InputError(f"--failed-logit {failed_logit} is no float32, as a Parquet file holds")


def _text(name: str) -> str:
    """What a string can hold: bytes that are not UTF-8, which tables keep, are spelled out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
