"""Released files for the commands that need them: from the store, else fetched, with a bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trtdet.build.download import OnLine
    from trtdet.build.release import Release
    from trtdet.build.transfer import OnProgress


def fetched(release: Release) -> Path:
    """The file of `release`, from the store or the network; a bar shows the way."""
    from trtdet.build.weights_store import fetch_release

    with _download_bar() as (on_progress, on_line):
        return fetch_release(release, on_progress, on_line)


@contextmanager
def _download_bar() -> Iterator[tuple[OnProgress, OnLine]]:
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
