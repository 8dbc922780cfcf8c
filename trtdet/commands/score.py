"""`trtdet score`: the competition's contract."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from trtdet.commands.gpu_options import gpu_options, make_gpu_options
from trtdet.errors import InputError

EXIT_FAILED_ROWS = 3


@click.command()
@click.argument("input_csv", metavar="INPUT.CSV")
@click.argument("output_csv", metavar="OUTPUT.CSV")
@click.option(
    "--engine",
    metavar="NAME_OR_PATH",
    help="A bundle [the store's default, else the starter in the package].",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "tensorrt", "openvino"]),
    default="auto",
    show_default=True,
    help="What runs the network. A named one runs, or the command fails with the reason.",
)
@click.option(
    "--batch", type=click.IntRange(1, 4096), help="Images per batch [the bundle's, or its plan's]."
)
@click.option("--threads", type=click.IntRange(1, 256), help="Decoding threads [as many as cores].")
@click.option(
    "--failed-logit",
    type=float,
    metavar="X",
    help="Write X for a row that cannot be scored, instead of nothing.",
)
@click.option("--raw", is_flag=True, help="Write the network's logit without its decision.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse larger images [178956970, where Pillow stops].",
)
@click.option(
    "--resume", is_flag=True, help="Go on with a run of the same job that was interrupted."
)
@gpu_options
def command(
    input_csv: str,
    output_csv: str,
    engine: str | None,
    backend: str,
    batch: int | None,
    threads: int | None,
    failed_logit: float | None,
    raw: bool,
    max_pixels: int | None,
    resume: bool,
    **gpu: Any,
) -> int:
    """Score the images that INPUT.CSV lists, and write OUTPUT.CSV.

    INPUT.CSV has a column `filename`, relative to its own folder or absolute. OUTPUT.CSV gets
    `filename,logit`, one row per input row, in the same order; a logit above 0 means synthetic.
    `-` reads standard input, or writes standard output.

    A row whose image cannot be read has an empty logit, and its reason stands in
    OUTPUT.CSV.errors.csv; the exit code is then 3.

    What ends a run early, Ctrl-C or a power cut, loses nothing: the rows until then are in
    OUTPUT.CSV.journal, and --resume goes on from there, to the same bytes.

    \b
    Example:
      trtdet score input.csv output.csv
      trtdet score --engine npr --failed-logit 0 photos.csv scores.csv
    """
    from trtdet.engine.backends import choose_backend
    from trtdet.engine.decode import DEFAULT_MAX_PIXELS
    from trtdet.engine.engine import open_engine
    from trtdet.engine.ensemble import open_any
    from trtdet.engine.interrupt import stop_on_signal
    from trtdet.engine.journal import describe_job, keep_journal, write_again
    from trtdet.engine.machine import core_count
    from trtdet.engine.pipeline import score
    from trtdet.engine.sink import check_output, errors_path, leftovers, open_sink
    from trtdet.engine.store import find_bundle, starter_bundle
    from trtdet.engine.table import open_table

    if failed_logit is not None and not math.isfinite(failed_logit):
        raise InputError(f"--failed-logit {failed_logit} is no finite number")
    options = {"raw": raw, "failed_logit": failed_logit, "max_pixels": max_pixels}
    check_output(output_csv, input_csv)
    folder = find_bundle(engine)
    with open_table(input_csv, sys.stdin.buffer) as table:
        bundle = open_any(folder)
        if engine is None and folder == starter_bundle():
            click.echo(
                "no engine was chosen: the starter scores (`trtdet inspect starter`)", err=True
            )
        chosen, rejected = choose_backend(backend)
        for status in rejected:
            click.echo(f"backend {status.name} is not used: {status.reason}", err=True)
        # A bar and rows on one terminal would overwrite each other.
        shown = sys.stderr.isatty() and not (output_csv == "-" and sys.stdout.isatty())
        stray = [] if output_csv == "-" else leftovers(Path(output_csv))
        with (
            open_engine(
                chosen, bundle, batch=batch, raw=raw, gpu=make_gpu_options(**gpu)
            ) as opened,
            open_sink(output_csv, failed_logit, opened.columns) as sink,
            keep_journal(
                sink,
                output_csv,
                describe_job(bundle.path, opened, table.path, options),
                resume=resume,
                stray=stray,
                on_kept=_say_kept,
            ) as (journal, done),
            _progress(table.row_count, lambda: sink.failures, shown) as on_rows,
            stop_on_signal(_say_stopping) as stopping,
        ):
            rows, again = table.rows(), 0
            for result, row in zip(done, rows, strict=False):
                write_again(sink, row.filename, result)
                again += 1
            on_rows(again)
            summary = score(
                rows,
                table.resolve,
                opened,
                journal,
                decode_threads=threads or core_count(),
                max_pixels=max_pixels or DEFAULT_MAX_PIXELS,
                on_rows=on_rows,
                stopping=stopping,
            )
            if again + summary.rows < table.row_count:
                raise KeyboardInterrupt
    which = bundle.name + (" that comes with trtdet" if folder == starter_bundle() else "")
    click.echo(
        f"{summary.rows} rows in {summary.seconds:.1f} s ({_rate(summary.images_per_s)} images/s), "
        f"{summary.failures} failed; engine {which} ({bundle.precision}) on {opened.name}"
        + (f"; {again} rows were there before" if again else ""),
        err=True,
    )
    if sink.failures and output_csv != "-":
        click.echo(f"the reasons are in {errors_path(Path(output_csv))}", err=True)
    return EXIT_FAILED_ROWS if sink.failures else 0


def _say_kept(journal: Path) -> None:
    arguments = [each for each in sys.argv[1:] if each != "--resume"]
    arguments.insert(1, "--resume")
    click.echo(
        f"what was scored is in {journal}; go on with: trtdet {shlex.join(arguments)}", err=True
    )


def _say_stopping() -> None:
    click.echo("what was begun is finished; once more, and it stops at once", err=True)


def _rate(images_per_s: float) -> str:
    """Three digits, or more where there are more before the point."""
    return f"{images_per_s:.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


@contextmanager
def _progress(
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
        TextColumn("{task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("score", total=total, rate=0.0, failed=0)

        def on_rows(count: int) -> None:
            rate = progress.tasks[0].speed or 0.0
            progress.update(task, advance=count, rate=rate, failed=failures())

        yield on_rows
