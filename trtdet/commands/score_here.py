"""`trtdet score` on this machine: what was asked for, opened and checked, as a job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from trtdet.commands.gpu_options import say
from trtdet.commands.score_job import Job, run_job
from trtdet.commands.score_report import EXIT_INTERRUPTED, begin_report
from trtdet.engine.backends import choose_backend
from trtdet.engine.confine import open_root
from trtdet.engine.deadline import Deadline
from trtdet.engine.ensemble import open_any
from trtdet.engine.gpus import open_gpus
from trtdet.engine.runner import Runner, open_local
from trtdet.engine.sink import check_output
from trtdet.engine.store import find_bundle
from trtdet.engine.table import open_table


@dataclass(frozen=True)
class Request:
    """What the command was given."""

    source: str
    output: str
    engine: str | None
    backend: str
    how: dict[str, Any]  # of `open_local`
    decisive: dict[str, Any]  # what else decides the rows: a journal of others is refused
    root: str | None
    failed_logit: float | None
    devices: list[int] | str | None
    resume: bool
    ends_at: float | None  # by `time.monotonic()`
    as_json: bool


def score_here(request: Request) -> int:
    """Score, and say what came of it; the exit code."""
    check_output(request.output, request.source, request.failed_logit)
    root = None if request.root is None else open_root(request.root)
    folder = find_bundle(request.engine)
    with open_table(request.source, sys.stdin.buffer, root=root, output=request.output) as table:
        bundle = open_any(folder)
        report = begin_report(request.output, request.engine, folder, bundle)
        report.rows = table.row_count
        chosen, rejected = choose_backend(request.backend)
        for status in rejected:
            say(f"backend {status.name} is not used: {status.reason}")
        open_runner: Callable[[], AbstractContextManager[Runner]]
        open_runner = partial(open_local, chosen, bundle, **request.how)
        if request.devices:
            open_runner = partial(open_gpus, request.devices, chosen, folder, **request.how)
        job = Job(
            table,
            request.output,
            bundle,
            open_runner,
            request.decisive,
            failed_logit=request.failed_logit,
            resume=request.resume,
            deadline=Deadline(request.ends_at, table.row_count) if request.ends_at else None,
            as_json=request.as_json,
        )
        try:
            run_job(job, report)
        except KeyboardInterrupt:
            if request.as_json:
                report.print_json(EXIT_INTERRUPTED)
            raise
    return report.finish(as_json=request.as_json)
