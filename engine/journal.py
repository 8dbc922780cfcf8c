"""The journal of a run: what was scored so far, whatever ends it.

    {"journal": 1, "job": {...}}\\n        what is scored, and with what
    length, crc32, payload               again and again: a JSON list of rows, in order

A row is the list of its logits as text, or the reason why it has none. Records are appended, and
brought to the disk every few seconds. A record that was cut off, or does not have its checksum,
ends the journal: what follows was never promised to be there, and is scored again.
"""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from trtdet.engine.digest import sha256_file
from trtdet.engine.runner import Runner
from trtdet.engine.sink import Sink, format_logit
from trtdet.engine.store import RECORD
from trtdet.engine.table import Table
from trtdet.errors import InputError

SCHEMA = 1

Result = list[str] | str  # a row's logits, or why it has none

ROWS_AT_ONCE = 256  # rows of a record, at most
WRITTEN_EVERY_S = 1.0
SYNCED_EVERY_S = 5.0

_RECORD = struct.Struct("<II")  # bytes of the payload, their CRC-32
_HASH = re.compile("[0-9a-f]{64}")
_LONGEST = 1 << 24  # bytes: a length beyond it is no length


def journal_path(output: Path) -> Path:
    """Beside the output."""
    return output.with_name(output.name + ".journal")


def describe_job(
    bundle: Path, engine: Runner, table: Table, options: dict[str, Any]
) -> dict[str, Any]:
    """What decides the rows of a run, for `start_journal` and `resume_journal`."""
    return {
        "engine": sha256_file(bundle / RECORD),
        "backend": engine.name,
        "batch": engine.batch,
        table.kind: sha256_file(table.path),
        "folder": os.path.realpath(table.folder),
        "root": table.root is not None,
        **options,
    }


class Journal:
    """An open journal: a context manager. It is removed when the block ends well.

    `append` and `write` may be called from several threads.
    """

    def __init__(self, path: Path, file: IO[bytes]):
        self._path, self._file = path, file
        self._rows: list[Result] = []
        self._written = self._synced = time.monotonic()
        self._lock = threading.Lock()
        self.rows = 0  # that were appended by this process
        self.kept = False  # stays, even where the block ends well: there is more to score

    def append(self, result: Result) -> None:
        """One more row. Raises OSError where the disk is full."""
        with self._lock:
            self._rows.append(result)
            self.rows += 1
            due = time.monotonic() - self._written > WRITTEN_EVERY_S
            if due or len(self._rows) >= ROWS_AT_ONCE:
                self._write()

    def write(self) -> None:
        """Hand what there is to the system, and from time to time to the disk."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._rows:
            payload = json.dumps(self._rows, separators=(",", ":")).encode()
            self._file.write(_RECORD.pack(len(payload), zlib.crc32(payload)) + payload)
            self._file.flush()
            self._rows.clear()
        if self._written - self._synced > SYNCED_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced = self._written

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None and not self.kept:
                self._path.unlink()
                return
            with suppress(OSError):  # the disk is full: what is missing is scored again
                self.write()
                os.fsync(self._file.fileno())


def start_journal(path: Path, job: dict[str, Any]) -> Journal:
    """A new journal. One that is there from another run is moved aside, to `<path>.old`.

    Raises InputError while another process writes it, OSError where it cannot be made.
    """
    if path.exists():
        _locked(path).close()  # nobody writes it
        path.replace(path.with_name(path.name + ".old"))
    path.touch()
    file = _locked(path)
    file.write(job_header(job))
    file.flush()
    os.fsync(file.fileno())
    return Journal(path, file)


def resume_journal(path: Path, job: dict[str, Any]) -> tuple[Journal, Iterator[Result]]:
    """The journal of an interrupted run of the same job, and the rows that it has.

    Take all of them before anything is appended. Raises InputError where there is none, where it is
    another job's, with what differs, and while another process writes it.
    """
    try:
        file = _locked(path)
    except FileNotFoundError:
        raise InputError(
            f"there is no {path} to go on with: leave --resume out to start the run"
        ) from None
    try:
        check_job(path, file.readline(), job)
    except BaseException:
        file.close()
        raise
    return Journal(path, file), _read(file)


def job_header(job: dict[str, Any]) -> bytes:
    """The first line of a journal."""
    return json.dumps({"journal": SCHEMA, "job": job}, sort_keys=True).encode() + b"\n"


def check_job(path: Path | str, header: bytes, job: dict[str, Any]) -> None:
    """Raise InputError where a journal's first line says that it is not of this job."""
    try:
        record = json.loads(header)
        schema, then = record["journal"], record["job"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no journal of trtdet: leave --resume out") from None
    if schema != SCHEMA:
        raise InputError(f"{path} is of another version of trtdet: leave --resume out")
    differs = [
        f"{name} ({_short(then.get(name))} then, {_short(now)} now)"
        for name, now in job.items()
        if then.get(name) != now
    ]
    if differs:
        raise InputError(
            f"{path} is of another job; what differs: {'; '.join(differs)}. Give what was given "
            "then, or leave --resume out to start anew"
        )


def _locked(path: Path) -> IO[bytes]:
    """The file, for this process alone. Raises InputError where another has it."""
    file = path.open("r+b")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"another process is writing {path}: wait for it, or end it") from None
    except (ImportError, OSError):  # Windows, or a file system that has no locks
        pass
    return file


def _short(value: Any) -> str:
    text = str(value)
    return text[:16] if _HASH.fullmatch(text) else text


def journal_rows(path: Path) -> Iterator[Result]:
    """The rows of a journal that somebody may be writing; none where there is no journal."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.readline()
        yield from _records(file)


def _read(file: IO[bytes]) -> Iterator[Result]:
    """Every row up to the first record that is not whole, which is cut off."""
    good = yield from _records(file)
    file.seek(good)
    file.truncate()


def _records(file: IO[bytes]) -> Generator[Result, None, int]:
    """Every row up to the first record that is not whole. Returns where that begins."""
    good = file.tell()
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        length, checksum = _RECORD.unpack(head)
        payload = file.read(length) if length <= _LONGEST else b""
        if len(payload) != length or zlib.crc32(payload) != checksum:
            break
        good = file.tell()
        yield from cast(list[Result], json.loads(payload))
    return good


@contextmanager
def keep_journal(
    sink: Sink,
    output: str,
    job: dict[str, Any],
    *,
    resume: bool,
    stray: Iterable[Path],
    on_kept: Callable[[Path], None],
) -> Iterator[tuple[JournalSink, Iterator[Result]]]:
    """A sink whose rows are in the journal beside `output`, and the rows that it has already.

    `stray` files go, once the journal is nobody else's. `on_kept` hears of the journal where it
    stays: the block did not end well, or said so. Without a file there is no journal: `-` is
    standard output. Raises InputError for `resume` then, and what `start_journal` and
    `resume_journal` raise.
    """
    if output == "-":
        if resume:
            raise InputError("--resume needs an output file: standard output has no journal")
        yield JournalSink(sink, None), iter(())
        return
    path = journal_path(Path(output))
    journal, done = resume_journal(path, job) if resume else (start_journal(path, job), iter(()))
    for left in stray:
        left.unlink(missing_ok=True)
    try:
        with journal:
            yield JournalSink(sink, journal), done
    except BaseException:
        on_kept(path)
        raise
    if journal.kept:
        on_kept(path)


class JournalSink:
    """A sink whose rows are in the journal, too, where there is one."""

    def __init__(self, sink: Sink, journal: Journal | None):
        self._sink, self._journal = sink, journal

    @property
    def failures(self) -> int:
        """Rows without a score so far."""
        return self._sink.failures

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """One row: its logits, one per column, or the reason why there are none."""
        if self._journal is not None:
            if logits is None:
                self._journal.append(reason or "")
            else:
                logits = list(logits)
                self._journal.append([format_logit(logit) for logit in logits])
        self._sink.write(filename, logits, reason)

    def flush(self) -> None:
        """Everything so far is in the journal's file."""
        if self._journal is not None:
            self._journal.write()

    def keep(self) -> None:
        """The journal stays: the run ends well, and there is more to score."""
        if self._journal is not None:
            self._journal.kept = True


def write_again(sink: Sink, filename: str, result: Result) -> None:
    """A row that the journal has already, into the sink itself."""
    if isinstance(result, str):
        sink.write(filename, None, result)
    else:
        sink.write(filename, [np.float32(text) for text in result], None)
