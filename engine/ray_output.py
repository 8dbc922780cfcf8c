"""The output of a Ray job: a folder of Parquet files, or from these one file in the input's order.

Beside it, in `<output>.journal/`, lies what going on needs, until the job has come to its end:

    job.json      what is scored, and with what       rows/     the numbered rows
    checkpoint/   Ray's: the numbers that are done    parts/    the files that one is made of
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtdet.engine.decoded import FILENAME, REASON
from trtdet.engine.journal import check_job, job_header
from trtdet.engine.locations import is_url, open_filesystem
from trtdet.engine.ray_rows import INDEX
from trtdet.engine.sink import check_output, open_sink
from trtdet.errors import InputError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Rows that are put in order at once: a file's statistics say whether it has any of them.
SORTED_AT_ONCE = 1 << 20

# What Ray calls the record of a file that it has not finished.
_PENDING = ".pending.parquet"


@dataclass(frozen=True)
class Output:
    """Where the rows of a job go. Paths are the file system's own."""

    name: str  # as it was given
    filesystem: FileSystem
    path: str

    @property
    def ordered(self) -> bool:
        """Whether it is one file, a CSV or Parquet: the rows are put in order in the end."""
        return self.name.lower().endswith((".csv", ".parquet"))

    @property
    def journal(self) -> str:
        """The folder beside the output."""
        return f"{self.path}.journal"

    @property
    def rows(self) -> str:
        """The folder of the numbered rows."""
        return f"{self.journal}/rows"

    @property
    def checkpoint(self) -> str:
        """The folder that Ray keeps."""
        return f"{self.journal}/checkpoint"

    @property
    def parts(self) -> str:
        """The folder of the Parquet files: the checkpoint's must not lie in it."""
        return f"{self.journal}/parts" if self.ordered else self.path

    def files(self, folder: str) -> list[str]:
        """The files in a folder of Ray's, which need not be there."""
        from pyarrow.fs import FileSelector

        found = self.filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
        return [each.path for each in found if each.is_file]


def open_output(name: str, source: str, failed_logit: float | None = None) -> Output:
    """The output `name` of a job that reads `source`. Raises InputError for one that cannot be."""
    filesystem, path = open_filesystem(name)
    output = Output(name, filesystem, path.rstrip("/"))
    if output.ordered and is_url(name):
        raise InputError(f"rows are put in order on this machine: {name} has to be a folder")
    if output.ordered:
        check_output(name, source, failed_logit)
    elif filesystem.get_file_info(output.path).is_file:
        raise InputError(f"the output {name} is a file: --ray writes a folder, .csv or .parquet")
    return output


def begin(output: Output) -> None:
    """Clear the place for a job. Raises InputError where another run's work is in the way."""
    if output.filesystem.get_file_info(_record(output)).is_file:
        raise InputError(
            f"{output.journal} is of a run that was interrupted: go on with --resume, or remove it "
            f"and {output.name}"
        )
    if output.filesystem.get_file_info(output.journal).is_file:
        raise InputError(
            f"{output.journal} is of a run without --ray: go on with that, or remove it"
        )
    if not output.ordered and output.files(output.parts):
        raise InputError(f"the output {output.name} is not empty: give another folder")
    if output.files(output.rows):  # it ended before all were there
        output.filesystem.delete_dir(output.rows)
    output.filesystem.create_dir(output.parts, recursive=True)


def write_record(output: Output, job: dict[str, Any]) -> None:
    """Say what the journal is of. Its rows are whole from now on."""
    with output.filesystem.open_output_stream(_record(output)) as file:
        file.write(job_header(job))


def check_record(output: Output, job: dict[str, Any]) -> None:
    """Raise InputError where there is no journal to go on with, or another job's."""
    try:
        with output.filesystem.open_input_stream(_record(output)) as file:
            check_job(output.journal, file.read(), job)
    except FileNotFoundError:
        raise InputError(
            f"there is no {output.journal} to go on with: leave --resume out to start the run"
        ) from None


def discard_journal(output: Output) -> None:
    """The job has come to its end."""
    output.filesystem.delete_dir(output.journal)


def write_nothing(output: Output, schema: Any) -> None:
    """The output of a table without rows: one file that has the columns."""
    from pyarrow.parquet import write_table

    path = f"{output.parts}/no-rows.parquet"
    write_table(schema.empty_table(), path, filesystem=output.filesystem)


def count_done(output: Output) -> tuple[int, int]:
    """Rows that are in the output for good, and how many of them have no score."""
    # In this order: what is listed before it was finished is still known to be pending.
    parts = [each for each in output.files(output.parts) if each.endswith(".parquet")]
    begun = [Path(each).name for each in output.files(output.checkpoint)]
    unfinished = tuple(each.removesuffix(_PENDING) for each in begun if each.endswith(_PENDING))
    whole = [each for each in parts if not (unfinished and Path(each).name.startswith(unfinished))]
    if not whole:
        return 0, 0
    from pyarrow import compute
    from pyarrow.dataset import dataset

    table = dataset(whole, filesystem=output.filesystem, format="parquet")
    failed = compute.field(REASON).is_valid()
    return table.count_rows(), table.count_rows(filter=failed)


def write_ordered(
    output: Output, rows: int, columns: tuple[str, ...], failed_logit: float | None
) -> None:
    """The parts as one file in the order of the input, to the bytes that one process writes."""
    from pyarrow import compute
    from pyarrow.dataset import dataset

    parts = dataset(output.files(output.parts), filesystem=output.filesystem, format="parquet")
    index = compute.field(INDEX)
    with open_sink(output.name, failed_logit, columns) as sink:
        for first in range(0, rows, SORTED_AT_ONCE):
            wanted = (index >= first) & (index < first + SORTED_AT_ONCE)
            batch = parts.to_table(filter=wanted).sort_by(INDEX)
            logits = np.stack([batch[name].to_numpy() for name in columns], axis=1)
            names, reasons = batch[FILENAME].to_pylist(), batch[REASON].to_pylist()
            for name, row, reason in zip(names, logits, reasons, strict=True):
                sink.write(os.fsdecode(name), None if reason is not None else row, reason)


def _record(output: Output) -> str:
    return f"{output.journal}/job.json"
