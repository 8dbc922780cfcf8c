"""Sections in processes of their own: what kills one costs a row, not the run.

A GPU that was lost stays lost for its process, and a library that meets a GPU it does not know may
end the process. So each section is a child. One that dies is started again without the row that it
died of; one that outlasts its time is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trtdet.benchmarks.gpu_record import Record, Row
from trtdet.benchmarks.gpu_section import GPU_LOST, Section

LOG = "gpu.log"

# What a section gets however little its share is, if there is that much: most rows take seconds.
_LEAST_S = 20.0

# A row cannot be interrupted, so a section may end later than it should by this and no more.
_OVERTIME_S = 60.0

# TensorRT does not hear a signal while it compiles.
_ENDING_S = 5.0

_LOG_TAIL_BYTES = 4000

_GPU_LOST = "its GPU was lost"


def run_sections(
    sections: Sequence[Section], out: Path, command: Sequence[str], seconds: float
) -> None:
    """Each section in turn. A section that ends early leaves its time to those after it.

    `command` starts a child; `--section NAME --seconds S` is added to it.
    """
    record = Record(out)
    for section in sections:
        record.begin(section.name, section.title)
    (out / LOG).unlink(missing_ok=True)
    end = time.monotonic() + seconds
    for number, section in enumerate(sections):
        left = max(0.0, end - time.monotonic())
        ahead = sum(each.share for each in sections[number:])
        own = max(left * section.share / ahead, min(_LEAST_S, left))
        print(f"{section.title}, up to {own:.0f} s", file=sys.stderr, flush=True)
        overtime = min(_OVERTIME_S, 10.0 + (left - own) / 2.0)
        _run_section(section, out, command, own, overtime)


def _run_section(
    section: Section, out: Path, command: Sequence[str], seconds: float, overtime: float
) -> None:
    end = time.monotonic() + seconds
    while True:
        left = max(0.0, end - time.monotonic())
        died = _run_child(section, out, [*command, "--seconds", f"{left:.1f}"], left + overtime)
        if not died:
            return
        if died == _GPU_LOST and left > 0.0:  # the row is there, with what CUDA said
            continue
        record = Record(out)
        found = record.sections[section.name]
        row, found.running = found.running, ""
        if row:
            found.rows.append(Row(row, "failed", reason=died))
        print(f"  {row or section.name}: {died}", file=sys.stderr, flush=True)
        if not row or time.monotonic() > end:  # nothing to leave out, or nothing to go on with
            found.reason = died
            record.save()
            return
        record.save()


def _run_child(section: Section, out: Path, command: Sequence[str], limit_s: float) -> str:
    """How the child died; "" where it ended by itself."""
    with (out / LOG).open("ab") as log:
        log.write(f"\n== {section.name}\n".encode())
        log.flush()
        start = log.tell()
        # Its progress is talk, as ours is.
        child = subprocess.Popen(
            [*command, "--section", section.name], stdout=sys.stderr.fileno(), stderr=log
        )
        try:
            code = child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end(child)
            return f"ended after {limit_s:.0f} s: its time was over"
        except BaseException:
            _end(child)
            raise
    if code == 0:
        return ""
    if code == GPU_LOST:
        return _GPU_LOST
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process died ({how}){_last_words(out / LOG, start)}"


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=_ENDING_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_words(log: Path, start: int) -> str:
    """The last line that is no frame of Python's, which `faulthandler` adds."""
    with log.open("rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith(_FRAMES)]
    return f": {said[-1]}" if said else ""


_FRAMES = (
    "  File ",
    "  ...",
    "Current thread",
    "Thread 0x",
    "Extension modules",
    "Fatal Python",
    "  Binary",
)
