"""What `trtdet score` says of a run: a bar while it goes, a line or JSON when it is through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from trtdet.commands.gpu_options import say
from trtdet.engine.bundle import Bundle
from trtdet.engine.ensemble import Ensemble
from trtdet.engine.store import starter_bundle

EXIT_DONE, EXIT_FAILED_ROWS, EXIT_INTERRUPTED = 0, 3, 130


@dataclass
class Report:
    """A run in numbers. Its fields are those of `--json`."""

    output: str
    engine: str
    precision: str
    backend: str = ""
    batch: int = 0
    rows: int = 0  # of the table
    scored: int = 0  # of them, by this run and the ones that it goes on with
    failed: int = 0  # their images cannot be scored
    not_reached: int = 0  # before the deadline
    resumed: int = 0  # rows that were there before this run
    seconds: float = 0.0  # of scoring, start-up excluded
    images_per_s: float = 0.0  # of this run
    left_out: list[dict[str, Any]] = field(default_factory=list)
    errors: str | None = None  # the file of reasons
    resume: str | None = None  # the command that goes on, where there is something left to score

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return EXIT_FAILED_ROWS if self.failed or self.not_reached else EXIT_DONE

    def finish(self, *, as_json: bool) -> int:
        """Say it: to a reader on standard error, as JSON on standard output. The exit code."""
        for line in self._lines():
            click.echo(line, err=True)
        if as_json:
            self.print_json(self.exit_code)
        return self.exit_code

    def print_json(self, exit_code: int) -> None:
        """One line on standard output."""
        click.echo(json.dumps({**asdict(self), "exit_code": exit_code}))

    def _lines(self) -> Iterator[str]:
        where = f"engine {self.engine} ({self.precision}) on {self.backend}"
        before = f"; {self.resumed} rows were there before" if self.resumed else ""
        late = f", {self.not_reached} not reached" if self.not_reached else ""
        yield (
            f"{self.rows - self.resumed - self.not_reached} rows in {self.seconds:.1f} s "
            f"({_rate(self.images_per_s)} images/s), {self.failed} failed{late}; {where}{before}"
        )
        for each in self.left_out:
            yield f"from row {each['from_row']} on without {each['what']}"
        if self.errors:
            yield f"the reasons are in {self.errors}"


def begin_report(
    output: str, engine: str | None, folder: Path, bundle: Bundle | Ensemble
) -> Report:
    """For what `--engine` came to; where nobody chose the starter, that is said."""
    report = Report(output, bundle.name, bundle.precision)
    if folder == starter_bundle():
        report.engine += " that comes with trtdet"
        if engine is None:
            say("no engine was chosen: the starter scores (`trtdet inspect starter`)")
    return report


@contextmanager
def progress(
    total: int, failures: Callable[[], int], shown: bool
) -> Iterator[Callable[[int], None]]:
    """A bar with rate, time left and failures."""
    if not shown:
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} rows/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("score", total=total, rate=0.0, failed=0)

        def on_rows(count: int) -> None:
            rate = bar.tasks[0].speed or 0.0
            bar.update(task, advance=count, rate=rate, failed=failures())

        yield on_rows


def _rate(images_per_s: float) -> str:
    """Three digits, or more where there are more before the point."""
    return f"{images_per_s:.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"
