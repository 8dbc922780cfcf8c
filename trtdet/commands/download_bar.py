"""What a download shows: a bar where standard error is a terminal, and lines anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trtdet.build.download import OnLine
    from trtdet.build.transfer import OnProgress


@contextmanager
def download_bar() -> Iterator[tuple[OnProgress, OnLine]]:
    """What hears the bytes of a download, and what hears its lines; the bar appears with bytes."""
    if not sys.stderr.isatty():
        yield (lambda _done, _total: None), (lambda line: click.echo(line, err=True))
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fetch", total=None, visible=False)

        def on_progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        def on_line(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        yield on_progress, on_line
