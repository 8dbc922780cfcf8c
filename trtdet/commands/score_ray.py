"""`trtdet score --ray`: the same job on the machines of a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from trtdet.commands.gpu_options import make_gpu_options
from trtdet.commands.score_job import resume_command
from trtdet.commands.score_report import EXIT_INTERRUPTED, Report, begin_report, progress
from trtdet.engine.ensemble import open_any
from trtdet.engine.ray_cluster import connected
from trtdet.engine.ray_job import OpenedJob, RayJob, open_ray_job
from trtdet.engine.sink import reasons_path
from trtdet.engine.store import find_bundle
from trtdet.errors import InputError


def score_on_cluster(
    address: str,
    source: str,
    output: str,
    engine: str | None,
    options: dict[str, Any],
    gpu: dict[str, Any],
    one_machine: dict[str, Any],
    resume: bool,
    as_json: bool,
) -> int:
    """Score on the cluster at `address`; the exit code.

    `options` are fields of `RayJob`, `gpu` those of `make_gpu_options`. What was given of
    `one_machine` is refused.
    """
    if "-" in (source, output):
        raise InputError("--ray needs files: no node sees standard input or output")
    one_machine = {**one_machine, "device": gpu["device"], "trust-plans": gpu["trust_plans"]}
    if refused := [f"--{name}" for name, given in one_machine.items() if given]:
        raise InputError(f"{', '.join(refused)} and --ray do not go together: leave one out")
    folder = find_bundle(engine)
    bundle = open_any(folder)
    report = begin_report(output, engine, folder, bundle)
    job = RayJob(source, output, folder, gpu=make_gpu_options(**gpu), **options)
    with connected(address) as ray:
        opened = open_ray_job(ray, job, resume=resume)
        try:
            _run(ray, opened, report)
        except BaseException as error:
            report.resume = resume_command()
            kept = opened.output.journal
            click.echo(f"what was scored is in {kept}; go on with: {report.resume}", err=True)
            if as_json and isinstance(error, KeyboardInterrupt):
                report.print_json(EXIT_INTERRUPTED)
            raise
    return report.finish(as_json=as_json)


def _run(ray: Any, opened: OpenedJob, report: Report) -> None:
    """Run the job under a bar, and fill in the report."""
    engines, nodes = opened.engines.count, opened.engines.nodes
    where = f"{_count(engines, 'engine')} on {_count(nodes, 'node')}"
    report.backend, report.batch = f"{opened.facts.name}, {where}", opened.facts.batch
    report.rows, report.resumed = opened.rows, opened.rows_before
    report.failed = opened.failures_before

    def on_rows(rows: int, failures: int) -> None:
        report.failed = opened.failures_before + failures
        advance(rows)

    with progress(opened.rows, lambda: report.failed, sys.stderr.isatty()) as advance:
        advance(opened.rows_before)
        summary = opened.run(ray, on_rows)
    report.seconds, report.images_per_s = summary.seconds, summary.images_per_s
    report.failed = opened.failures_before + summary.failures
    report.scored = opened.rows - report.failed
    if report.failed:
        path = Path(report.output)
        report.errors = str(reasons_path(path)) if opened.output.ordered else report.output


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
