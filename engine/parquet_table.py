"""A Parquet file's column `filename`, read as a stream: a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtdet.engine.csv_table import COLUMN
from trtdet.errors import InputError

ROWS_AT_ONCE = 4096

# A column is read through a buffer of this size. Without one, Arrow reads a whole row group.
BUFFER_BYTES = 1 << 20


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name. Any other is a CSV."""
    return path.suffix.lower() == ".parquet"


def import_parquet() -> Any:
    """`pyarrow.parquet`. Raises InputError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet needs pyarrow ({error}): pip install 'trtdet[parquet]', or use CSV"
        ) from error
    return pyarrow.parquet


def count_names(path: Path, shown: str) -> int:
    """Read the column of `path`, that messages call `shown`, to its end. Returns how many rows.

    Raises InputError when pyarrow is missing, the file cannot be read to its end, or has no column
    `filename` of strings.
    """
    with _open(path, shown) as file:
        count = sum(len(batch) for batch in _batches(file))
        if count != file.metadata.num_rows:
            raise InputError(
                f"{shown} announces {file.metadata.num_rows} rows and has {count}: write it again"
            )
        return count


def read_names(path: Path, shown: str) -> Iterator[str]:
    """Every row's name, one at a time; "" for a null."""
    with _open(path, shown) as file:
        for batch in _batches(file):
            for name in batch.to_pylist():
                yield "" if name is None else name.decode("utf-8", "surrogateescape")


@contextmanager
def _open(path: Path, shown: str) -> Iterator[Any]:
    """The open file, once its schema is in order. Whatever Arrow raises is an InputError."""
    parquet = import_parquet()
    import pyarrow

    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            _check(file.schema_arrow, shown)
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {shown} as Parquet: {text}") from error


def _check(schema: Any, shown: str) -> None:
    import pyarrow.types as types

    if COLUMN not in schema.names:
        found = ", ".join(repr(name[:40]) for name in schema.names[:8])
        raise InputError(
            f"{shown} has no column '{COLUMN}' (it has {found}): "
            f"name the column of image paths '{COLUMN}'"
        )
    if schema.names.count(COLUMN) > 1:
        raise InputError(f"{shown} has several columns '{COLUMN}': leave one")
    kind = schema.field(COLUMN).type
    values = kind.value_type if types.is_dictionary(kind) else kind
    if not _is_text(values):
        raise InputError(f"the column '{COLUMN}' of {shown} is {kind}, not a string: convert it")


def _is_text(kind: Any) -> bool:
    """Strings, what some writers call strings, and a column of nulls alone."""
    return str(kind) in {
        *("string", "large_string", "string_view", "null"),
        *("binary", "large_binary", "binary_view"),
    }


def _batches(file: Any) -> Iterator[Any]:
    """The names as bytes: a string that is not UTF-8 could not be read as one."""
    import pyarrow

    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[COLUMN], use_threads=False):
        column = batch.column(0)
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        yield column.cast(pyarrow.large_binary())
