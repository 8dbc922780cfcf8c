"""The output: one row per input row, in input order, whole or not there at all.

Failed rows stand in the output with an empty logit (or the number the user chose), and with their
reason in `<output>.errors.csv`, which exists only when a row failed.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from trtdet.engine.atomic import atomic_text, is_writable_folder
from trtdet.errors import InputError


class CsvSink:
    """Rows to an open CSV; reasons to a second CSV that is made when the first row fails."""

    def __init__(
        self, scores: IO[str], open_errors: Callable[[], IO[str]], failed_logit: float | None
    ):
        self.failures = 0
        self._scores = csv.writer(scores, lineterminator="\n")
        self._scores.writerow(("filename", "logit"))
        self._open_errors = open_errors
        self._errors: Any = None
        self._failed_logit = "" if failed_logit is None else repr(failed_logit)

    def write(self, filename: str, logit: np.float32 | None, reason: str | None) -> None:
        """One row: a logit, or the reason why there is none."""
        if logit is not None:
            self._scores.writerow((filename, format_logit(logit)))
            return
        self.failures += 1
        self._scores.writerow((filename, self._failed_logit))
        if self._errors is None:
            self._errors = csv.writer(self._open_errors(), lineterminator="\n")
            self._errors.writerow(("filename", "reason"))
        self._errors.writerow((filename, reason))


def format_logit(logit: np.float32) -> str:
    """The shortest decimal that reads back to the same float32."""
    return str(np.float32(logit))


def errors_path(output: Path) -> Path:
    """Where the reasons of failed rows go."""
    return output.with_name(output.name + ".errors.csv")


def check_output(target: str, source: str) -> None:
    """Raise InputError if `target` cannot be written, or is the input. Touches neither."""
    if target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise InputError(
            f"the output {path} is a folder: give a file, for instance {path}/scores.csv"
        )
    if path.exists() and not path.is_file():  # a rename would put a file in the device's place
        raise InputError(f"the output {path} is no regular file: use - for standard output")
    if not path.parent.is_dir():
        raise InputError(f"the output's folder {path.parent} does not exist: make it first")
    if source != "-" and Path(source).exists():
        for written in (path, errors_path(path)):
            if written.exists() and written.samefile(source):
                raise InputError(f"the output {path} would overwrite the input: give another name")
    if not is_writable_folder(path.parent):
        raise InputError(f"cannot write in {path.parent}: choose an output folder that is writable")


@contextmanager
def open_sink(target: str, failed_logit: float | None) -> Iterator[CsvSink]:
    """A sink for the file `target`, or `-` for standard output with the reasons on standard error.

    Both files appear when the block ends well. When it does not, whatever stood there before stays.
    """
    with ExitStack() as stack:
        if target == "-":
            sys.stdout.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="surrogateescape", newline=""
            )
            yield CsvSink(sys.stdout, lambda: sys.stderr, failed_logit)
            sys.stdout.flush()
            return
        path = Path(target)

        def open_errors() -> IO[str]:
            return stack.enter_context(atomic_text(errors_path(path)))

        sink = CsvSink(stack.enter_context(atomic_text(path)), open_errors, failed_logit)
        yield sink
        if sink.failures == 0:
            errors_path(path).unlink(missing_ok=True)
