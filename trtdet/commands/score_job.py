"""One run of `trtdet score`, from an open table to its report."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from trtdet.commands.score_report import Report, progress
from trtdet.engine.bundle import Bundle
from trtdet.engine.deadline import Deadline, score_in_time, watch, write_unreached
from trtdet.engine.ensemble import Ensemble
from trtdet.engine.interrupt import stop_on_signal
from trtdet.engine.journal import (
    JournalSink,
    describe_job,
    journal_path,
    journal_rows,
    keep_journal,
    write_again,
)
from trtdet.engine.runner import Runner
from trtdet.engine.sink import Sink, leftovers, open_sink, reasons_path
from trtdet.engine.table import Table


@dataclass(frozen=True)
class Job:
    """What is scored, where to, and until when."""

    table: Table
    output: str
    bundle: Bundle | Ensemble
    open_runner: Callable[[], AbstractContextManager[Runner]]
    options: dict[str, Any]  # what else decides the rows: a journal of others is refused
    failed_logit: float | None = None
    resume: bool = False
    deadline: Deadline | None = None
    as_json: bool = False


def run_job(job: Job, report: Report) -> None:
    """Score, write, and fill in the report. Raises KeyboardInterrupt for a run that was stopped."""
    table, output = job.table, job.output
    # A bar and rows on one terminal would overwrite each other.
    shown = sys.stderr.isatty() and not (output == "-" and sys.stdout.isatty())
    stray = [] if output == "-" else leftovers(Path(output))
    begun: list[JournalSink] = []  # once it is open

    def kept(journal: Path) -> None:
        report.resume = resume_command()
        click.echo(f"what was scored is in {journal}; go on with: {report.resume}", err=True)

    def late() -> int:
        """In another thread, while this one does not answer."""
        for sink in begun:
            sink.flush()
        write_late(job, report, known=bool(begun))
        kept(journal_path(Path(output)))
        return report.finish(as_json=job.as_json)

    with (
        watch(job.deadline.write_at if job.deadline else None, late) as in_time,
        job.open_runner() as runner,
        open_sink(output, job.failed_logit, job.bundle.outputs) as sink,
        keep_journal(
            sink,
            output,
            describe_job(job.bundle.path, runner, table, job.options),
            resume=job.resume,
            stray=stray,
            on_kept=kept,
        ) as (journal, done),
        progress(table.row_count, lambda: sink.failures, shown) as on_rows,
        stop_on_signal(_say_stopping) as stopping,
    ):
        report.backend, report.batch = runner.name, runner.batch
        begun.append(journal)
        rows = table.rows()
        for result, row in zip(done, rows, strict=False):
            write_again(sink, row.filename, result)
            report.resumed += 1
        on_rows(report.resumed)
        summary, left_out = score_in_time(
            rows,
            table.row_count - report.resumed,
            table.resolve,
            runner,
            journal,
            until=job.deadline.score_until if job.deadline else math.inf,
            on_rows=on_rows,
            on_less=_say_less,
            stopping=stopping,
        )
        in_time()
        report.seconds, report.images_per_s = summary.seconds, summary.images_per_s
        report.left_out = [asdict(each) for each in left_out]
        report.failed = sink.failures
        report.scored = report.resumed + summary.rows - sink.failures
        if stopping() and report.resumed + summary.rows < table.row_count:
            raise KeyboardInterrupt
        report.not_reached = write_unreached(sink, rows)
        if report.not_reached:
            journal.keep()
    _name_errors(report, sink)


def write_late(job: Job, report: Report, *, known: bool) -> None:
    """The output with what the journal has; the rows that it has not were not reached.

    Not `known`: a journal that may be there is another job's, for all that was checked.
    """
    path = Path(job.output)
    for left in leftovers(path):  # of the thread that does not answer
        left.unlink(missing_ok=True)
    done = journal_rows(journal_path(path)) if known else iter(())
    report.failed = report.scored = 0
    with open_sink(job.output, job.failed_logit, job.bundle.outputs) as sink:
        rows = job.table.rows()
        for result, row in zip(done, rows, strict=False):
            write_again(sink, row.filename, result)
            report.scored += not isinstance(result, str)
        report.failed = sink.failures
        report.not_reached = write_unreached(sink, rows)
    _name_errors(report, sink)


def resume_command() -> str:
    """The command that goes on with this one."""
    arguments = [each for each in sys.argv[1:] if each != "--resume"]
    arguments.insert(1, "--resume")
    return f"trtdet {shlex.join(arguments)}"


def _name_errors(report: Report, sink: Sink) -> None:
    if sink.failures and report.output != "-":
        report.errors = str(reasons_path(Path(report.output)))


def _say_stopping() -> None:
    click.echo("what was begun is finished; once more, and it stops at once", err=True)


def _say_less(what: str) -> None:
    click.echo(f"there is not the time: on without {what}", err=True)
