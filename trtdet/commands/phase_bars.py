"""A bar for each phase of a plan that is being compiled, or nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trtdet.build.progress_monitor import OnLine, OnPhase, Phase


@contextmanager
def phase_bars() -> Iterator[tuple[OnLine, OnPhase | None]]:
    """What hears the lines of a build, and what hears its phases.

    Where standard error is no terminal there are lines alone: `compile_bundle` writes one now and
    then with the phase it is in.
    """
    if not sys.stderr.isatty():
        yield (lambda line: click.echo(line, err=True)), None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, Elapsed(), console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def on_phase(phase: Phase) -> None:
            if phase.name not in tasks:
                label = f"{'  ' * phase.depth}{phase.name}"
                tasks[phase.name] = bars.add_task(label, total=phase.steps)
            bars.update(tasks[phase.name], completed=phase.done)
            if phase.over:
                bars.remove_task(tasks.pop(phase.name))

        def on_line(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        yield on_line, on_phase
