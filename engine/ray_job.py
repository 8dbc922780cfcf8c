"""Scoring on many machines: one Ray Data pipeline, from a table to a folder of Parquet files.

    rows ─▶ decode (tasks, a core each) ─▶ score (actors, an engine each) ─▶ output

Ray streams, holds back what runs ahead, starts again what died, and marks the rows that were
written. A row of the output has its number `index` in the input, `filename`, a float32 per logit
(null where there is none) and `reason`; every number is there once, in no order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtdet.engine.decode import Limits
from trtdet.engine.decoded import Decoder
from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry
from trtdet.engine.pipeline import DEFAULT_LIMITS, Summary
from trtdet.engine.ray_cluster import Engines, plan_engines
from trtdet.engine.ray_output import (
    Output,
    begin,
    check_record,
    count_done,
    discard_journal,
    open_output,
    write_nothing,
    write_ordered,
    write_record,
)
from trtdet.engine.ray_rows import INDEX, open_rows, write_rows
from trtdet.engine.ray_stages import (
    EngineFacts,
    ScoreRows,
    ShippedEngine,
    output_schema,
    try_engine,
)
from trtdet.engine.ray_tally import OnRows, tallied
from trtdet.engine.shipped import bundle_digest, read_files
from trtdet.engine.store import RECORD
from trtdet.errors import BackendError, TrtdetError

if TYPE_CHECKING:
    from trtdet.engine.tensorrt import GpuOptions

# Rows of a file of the output, at least, and files of a large job, about. What was scored and is
# in no file yet is scored again when the job goes on.
ROWS_PER_FILE, FILES = 256, 1000

# Rows that a task decodes: enough to be worth a task, few enough that all cores have some.
ROWS_PER_TASK = 128

# Decoded pixels that a task holds at once, about; at native resolution it holds one image.
DECODED_BYTES = 32 << 20


@dataclass(frozen=True)
class RayJob:
    """What to score, and how: as the options of `trtdet score`."""

    source: str  # a CSV, or Parquet: a path or an URL
    output: str  # a folder, or a file, `.csv` or `.parquet`
    bundle: Path
    backend: str = "auto"
    batch: int | None = None
    raw: bool = False
    failed_logit: float | None = None
    limits: Limits = DEFAULT_LIMITS
    gpu: GpuOptions | None = None
    rows_per_file: int | None = None  # None: by the number of rows


@dataclass(frozen=True)
class OpenedJob:
    """A job whose journal is there, and whose engine one node has opened."""

    job: RayJob
    output: Output
    engines: Engines
    engine: ShippedEngine
    facts: EngineFacts
    rows: int
    folder: str  # names are relative to it
    rows_before: int = 0  # that earlier runs have written
    failures_before: int = 0

    @property
    def rows_per_file(self) -> int:
        """Of the output, at least."""
        return self.job.rows_per_file or max(ROWS_PER_FILE, self.rows // FILES)

    @property
    def _schema(self) -> Any:
        names = "binary" if self.output.ordered else "string"
        return output_schema(self.facts.columns, names)

    def run(self, ray: Any, on_rows: OnRows | None = None) -> Summary:
        """Score what is left, and finish the output.

        Raises BackendError when the cluster fails. What was written stays in the journal.
        """
        start = time.perf_counter()
        if self.rows == 0:
            write_nothing(self.output, self._schema)
        if self.rows_before < self.rows:
            with _ray_errors(ray), tallied(ray, on_rows) as tally:
                self._stream(ray, tally)
        seconds = time.perf_counter() - start
        rows, failures = count_done(self.output)
        if rows != self.rows:
            raise BackendError(
                f"{self.output.parts} has {rows} rows of {self.rows}: something else writes there. "
                f"Remove it and {self.output.journal}, and start again"
            )
        if self.output.ordered:
            write_ordered(self.output, self.rows, self.facts.columns, self.job.failed_logit)
        discard_journal(self.output)
        return Summary(rows - self.rows_before, failures - self.failures_before, seconds)

    def _stream(self, ray: Any, tally: Any) -> None:
        """The pipeline, until every row is written."""
        from ray.data.checkpoint import CheckpointConfig

        files, output, facts = self.output.filesystem, self.output, self.facts
        rows = ray.data.read_parquet(output.rows, filesystem=files)
        rows.context.enable_progress_bars = False
        rows.context.checkpoint_config = CheckpointConfig(
            INDEX,
            output.checkpoint,
            override_filesystem=files,
            delete_checkpoint_on_success=False,
        )
        tasks = rows.repartition(target_num_rows_per_block=min(ROWS_PER_TASK, self.rows_per_file))
        decoded = tasks.map_batches(
            Decoder(facts.geometries, self.folder, self.job.limits).__call__,
            batch_size=_rows_at_once(facts.geometries),
            num_cpus=1,
            # A claim that the engines do not have: of two stages alike Ray would make one.
            memory=2 * DECODED_BYTES,
        )
        count = self.engines.count
        scored = decoded.map_batches(
            ScoreRows,
            fn_constructor_args=(
                self.engine,
                self._schema,
                self.job.failed_logit,
                tally,
            ),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
            num_cpus=self.engines.cpus,
            num_gpus=self.engines.gpus,
        )
        scored.write_parquet(output.parts, filesystem=files, min_rows_per_file=self.rows_per_file)


def open_ray_job(ray: Any, job: RayJob, *, resume: bool = False) -> OpenedJob:
    """Prepare a job on the cluster that `ray` is connected to, or one that was interrupted.

    Raises InputError for what cannot be, and what opening the engine raises on a node.
    """
    output = open_output(job.output, job.source, job.failed_logit)
    engines = plan_engines(ray.nodes(), job.backend)
    with open_rows(job.source, job.output) as rows, _ray_errors(ray):
        engine, facts = _ship(ray, job, engines)
        opened = OpenedJob(job, output, engines, engine, facts, rows.count, rows.folder)
        record = {
            "engine": sha256_file(job.bundle / RECORD),
            "backend": facts.name,
            "batch": facts.batch,
            rows.table.kind: rows.sha256(),
            "folder": rows.folder,
            "raw": job.raw,
            "failed_logit": job.failed_logit,
            # Not max_seconds: what it refuses is the machine's and the day's, and nobody's job.
            "max_pixels": job.limits.max_pixels,
            "max_bytes": job.limits.max_bytes,
        }
        if resume:
            check_record(output, record)
            done, failed = count_done(output)
            return replace(opened, rows_before=done, failures_before=failed)
        begin(output)
        write_rows(rows, output.filesystem, output.rows, opened.rows_per_file)
        write_record(output, record)
        return opened


def _ship(ray: Any, job: RayJob, engines: Engines) -> tuple[ShippedEngine, EngineFacts]:
    """The engine in the object store, and what it is: one node opens it, as all will."""
    options = {
        "backend": job.backend,
        "batch": job.batch,
        "raw": job.raw,
        "streams": engines.streams,
        "gpu": job.gpu,
    }
    files = ray.put(read_files(job.bundle))
    engine = ShippedEngine(bundle_digest(job.bundle), files, options)
    claim = ray.remote(try_engine).options(num_cpus=engines.cpus, num_gpus=engines.gpus)
    facts: EngineFacts = ray.get(claim.remote(engine))
    # `auto` was decided once: all nodes have the same backend, or say why not.
    return replace(engine, options={**options, "backend": facts.backend}), facts


def _rows_at_once(geometries: tuple[Geometry, ...]) -> int:
    """Images that a task decodes before it hands them on."""
    if any(geometry.height is None for geometry in geometries):
        return 1
    sizes = [
        geometry.views * int(np.prod(geometry.fixed_size)) * 3 * np.dtype(geometry.dtype).itemsize
        for geometry in geometries
    ]
    return max(1, DECODED_BYTES // sum(sizes))


@contextmanager
def _ray_errors(ray: Any) -> Iterator[None]:
    """Errors of ours come back from a node as themselves, Ray's as a BackendError."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TrtdetError):
            raise error.cause from error
        raise BackendError(f"a task of the Ray cluster failed: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise BackendError(f"the Ray cluster failed: {error}") from error
