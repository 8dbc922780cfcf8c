"""One section of a run on a GPU: its rows, one after the other, until its time is over.

A section runs in a process of its own, see `trtdet.benchmarks.gpu_process`. A row that died with
the process is known by name when the section is started again, and is passed over, as are those
that were measured.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtdet.benchmarks.gpu_record import Record, Row, SectionRecord, Status
from trtdet.errors import TrtdetError

# The exit code of a process whose GPU is lost to it: another has to go on.
GPU_LOST = 75

# What CUDA says of errors after which a process gets nothing done any more.
_LOST = re.compile(
    r"illegal (memory access|address|instruction)|misaligned address|launch (failed|failure)|"
    r"device-side assert|hardware stack|LAUNCH_FAILED|ILLEGAL_ADDRESS|MISALIGNED_ADDRESS|"
    r"uncorrectable ECC|context is destroyed",
)

_LONGEST_REASON = 4000  # characters

Values = dict[str, Any]
Measure = Callable[[Values], None]  # fills in what it finds; what it filled in is kept if it raises


class MissingError(Exception):
    """Something that a row or a section needs is not on this machine: the message says what."""


class WrongError(Exception):
    """What was measured is not what it has to be."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    out: Path
    bundles: tuple[str, ...] = ()  # folders
    builds: tuple[str, ...] = ()  # MODEL:PRECISION each, from random weights
    images: Path | None = None  # a folder
    calibration: Path | None = None  # the set that the bundles were judged on
    asked: bool = False  # the user named what to do: it is done even where it leads to nothing

    @property
    def work(self) -> Path:
        """What the run makes for itself: images, bundles, plans."""
        return self.out / "work"


@dataclass
class Bench:
    """What a section gets: what was asked for, where its rows go, and how much time it has."""

    request: Request
    record: Record
    section: SectionRecord
    deadline: float = float("inf")  # of `time.monotonic`
    expendable: bool = False  # this process does nothing else, and another can take over
    _parent: int = field(default_factory=os.getppid)

    @property
    def remaining_s(self) -> float:
        """Seconds until no further row is started."""
        return self.deadline - time.monotonic()

    def row(self, name: str, measure: Measure) -> Values | None:
        """Measure one row, unless it is there already; its values, or None where it is not ok."""
        if (known := self.section.find(name)) is not None:
            return known.values if known.status == "ok" else None
        if os.getppid() != self._parent:
            sys.exit("the run was killed: what it found is kept")
        if self.remaining_s <= 0.0:
            self._add(Row(name, "skipped", reason="no time was left: give more --minutes"))
            return None
        self.section.running = name
        self.record.save()
        started = time.monotonic()
        values: Values = {}
        status, reason = self._try(measure, values)
        self._add(Row(name, status, time.monotonic() - started, values, reason))
        if status == "failed" and self.expendable and _LOST.search(reason):
            sys.stderr.flush()
            os._exit(GPU_LOST)  # what is open cannot be closed either
        return values if status == "ok" else None

    def _try(self, measure: Measure, values: Values) -> tuple[Status, str]:
        try:
            measure(values)
        except MissingError as error:
            return "skipped", str(error)
        except WrongError as error:
            return "wrong", str(error)
        except Exception as error:  # whatever breaks here is a finding, and the next row goes on
            traceback.print_exc()
            return "failed", in_words(error)
        return "ok", ""

    def _add(self, row: Row) -> None:
        self.section.rows.append(row)
        self.section.running = ""
        self.record.save()
        print(f"  {row.name}: {row.status}{row.reason and f' ({row.reason})'}", flush=True)


@dataclass(frozen=True)
class Section:
    """A group of rows. `run` raises MissingError where none of them can be measured here."""

    name: str
    title: str
    share: float  # of the time, next to the other sections'
    run: Callable[[Bench], None]


def run_section(
    section: Section, request: Request, seconds: float, *, expendable: bool = False
) -> SectionRecord:
    """Run a section in this process and write what it finds; it never raises for that.

    An `expendable` process ends with `GPU_LOST` when its GPU is lost.
    """
    record = Record(request.out)
    found = record.sections.get(section.name) or record.begin(section.name, section.title)
    started, before = time.monotonic(), found.seconds
    bench = Bench(request, record, found, deadline=started + seconds, expendable=expendable)
    try:
        section.run(bench)
        found.reason = ""
    except MissingError as error:
        found.reason = str(error)
    except Exception as error:
        traceback.print_exc()
        found.reason = in_words(error)
    if found.reason:
        print(f"  {found.outcome}: {found.reason}", flush=True)
    found.running = ""
    found.seconds = before + time.monotonic() - started
    record.save()
    sys.stderr.flush()
    return found


def in_words(error: BaseException) -> str:
    """An exception on one line, in its own words; its kind where it is none of ours."""
    text = " ".join(str(error).split())[:_LONGEST_REASON]
    return text if isinstance(error, TrtdetError) else f"{type(error).__name__}: {text}"
