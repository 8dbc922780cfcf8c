"""`trtdet evaluate`: what detectors reach on labelled images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtdet.commands.gpu_options import backend_option, gpu_options, make_gpu_options
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.benchmarks.evaluation_report import Report

EXIT_FAILED_ROWS = 3

_NAMED = 5  # failures, in a message


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True)
@click.argument("source", metavar="LABELS_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="A page with plots.")
@click.option("--json", "as_json", is_flag=True, help="Print everything measured as JSON.")
@click.option(
    "--split",
    metavar="NAME",
    help="Only these images [all; of a tree with `train`, its `test` or `val`].",
)
@click.option(
    "--robustness-images",
    type=click.IntRange(0),
    metavar="N",
    help="Images that are distorted in 32 ways, half of each class; 0: none [200].",
)
@click.option(
    "--rounds",
    type=click.IntRange(100, 100_000),
    default=2000,
    show_default=True,
    help="Of the bootstrap.",
)
@click.option(
    "--smallest-group",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Files of a generator or source with a row of its own.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all draws.")
@backend_option
@click.option("--threads", type=click.IntRange(1, 256), help="Decoding threads [as many as cores].")
@gpu_options
def command(
    bundles: tuple[str, ...],
    source: Path,
    html: Path | None,
    as_json: bool,
    split: str | None,
    robustness_images: int | None,
    rounds: int,
    smallest_group: int,
    seed: int,
    backend: str,
    threads: int | None,
    **gpu: Any,
) -> int:
    """Measure BUNDLEs, names in the store or folders, on labelled images, side by side.

    LABELS_OR_FOLDER is a CSV with the columns `filename` and `label` (0 real, 1 synthetic) and
    perhaps `generator`, `source`, `split` and `part`, or a folder in one of the field's layouts:
    `0_real` and `1_fake`, AIGCDetectBenchmark's, GenImage's. AUC, AP and accuracies come with 95 %
    intervals, for all images and for each generator, source and format; several bundles are
    compared. Images that cannot be scored are counted, and the exit code is then 3.

    \b
    Example:
      trtdet evaluate starter labels.csv --html report.html
      trtdet evaluate npr rine AIGCDetectBenchmark/test --robustness-images 0 --json > report.json
    """
    from trtdet.benchmarks.evaluate_bundles import ROBUSTNESS_IMAGES, Run, evaluate_bundles
    from trtdet.benchmarks.evaluation_page import evaluation_page
    from trtdet.benchmarks.evaluation_record import json_text
    from trtdet.benchmarks.evaluation_report import Settings
    from trtdet.benchmarks.record import describe_run
    from trtdet.calibration.layouts import read_images
    from trtdet.commands.evaluation_table import show_evaluation
    from trtdet.engine.atomic import atomic_text, check_writable
    from trtdet.engine.backends import choose_backend
    from trtdet.engine.ensemble import open_any
    from trtdet.engine.store import find_bundle

    if html:
        check_writable(html)
    if robustness_images == 1:
        raise InputError("--robustness-images 1: an image of each class is the least, or 0")
    opened = [open_any(find_bundle(name)) for name in bundles]
    images = read_images(source, split)
    chosen, rejected = choose_backend(backend)
    for status in rejected:
        click.echo(f"backend {status.name} is not used: {status.reason}", err=True)
    run = Run(
        backend=chosen,
        settings=Settings(rounds=rounds, seed=seed, smallest_group=smallest_group),
        robustness_images=ROBUSTNESS_IMAGES if robustness_images is None else robustness_images,
        threads=threads,
        gpu=make_gpu_options(**gpu),
    )
    with _progress(run.images_scored(len(images)) * len(opened)) as on_rows:
        report = evaluate_bundles(opened, source, images, run, on_rows=on_rows)
    facts = describe_run()
    if html:
        with atomic_text(html) as file:
            file.write(evaluation_page(report, facts))
    if as_json:
        click.echo(json_text(report, facts))
    else:
        show_evaluation(report)
    return _say_failures(report)


def _say_failures(report: Report) -> int:
    """What could not be scored, on standard error. Returns the exit code."""
    for result in report.results:
        if result.failed:
            click.echo(f"{result.name} could not score {result.failed} images", err=True)
        for file, reason in list(result.failures.items())[:_NAMED]:
            click.echo(f"  {file}: {reason}", err=True)
    return EXIT_FAILED_ROWS if any(result.failed for result in report.results) else 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over everything that is scored, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _name, _count: None
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda name, count: progress.update(task, advance=count, description=name)
