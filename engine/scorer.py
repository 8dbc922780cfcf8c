"""`trtdet.Scorer`: an engine as a plain callable, a batch of columns in and the same with scores.

Ray Data takes it as it is (`map_batches(trtdet.Scorer, ...)`), other frameworks through an adapter
of a few lines, see docs/long-jobs.md. Its scores are those of `trtdet score`, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import choose_backend
from trtdet.engine.decode import Limits
from trtdet.engine.decoded import (
    PIXELS,
    REASON,
    Batch,
    as_columns,
    pixel_columns,
    read_row,
    row_count,
)
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import open_any
from trtdet.engine.machine import core_count
from trtdet.engine.pipeline import Inputs, score
from trtdet.engine.store import find_bundle
from trtdet.engine.table import Row
from trtdet.errors import ImageError

if TYPE_CHECKING:
    from trtdet.engine.tensorrt import GpuOptions


class Scorer:
    """Scores batches of images. Loads the engine when it is made; `close` it, or use `with`.

    `engine` is a name in the store or a bundle's folder [the store's default, else the starter],
    `folder` what relative names are relative to [the working folder], `threads` decode, `streams`
    run the network on a CPU [both: as many as cores]; other options are those of `trtdet score`.
    A copy that is pickled opens the engine again where it arrives. Calls from several threads wait
    for each other. Raises what opening the engine raises: BundleError, BackendError, DriftError.
    """

    def __init__(
        self,
        engine: str | Path | None = None,
        *,
        backend: str = "auto",
        batch: int | None = None,
        threads: int | None = None,
        streams: int | None = None,
        raw: bool = False,
        failed_logit: float | None = None,
        max_pixels: int = Limits.max_pixels,
        max_bytes: int = Limits.max_bytes,
        max_seconds: float = Limits.max_seconds,
        folder: str | Path = "",
        gpu: GpuOptions | None = None,
    ):
        options: dict[str, Any] = {
            "backend": backend, "batch": batch, "threads": threads, "streams": streams, "raw": raw,
            "failed_logit": failed_logit, "max_pixels": max_pixels, "max_bytes": max_bytes,
            "max_seconds": max_seconds, "folder": folder, "gpu": gpu,
        }  # fmt: skip
        self._remake = partial(type(self), engine, **options)
        self._threads = threads or core_count()
        self._limits = Limits(max_pixels, max_bytes, max_seconds)
        self._folder = str(folder)
        self._failed = np.float32(np.nan if failed_logit is None else failed_logit)
        self._lock, self._stack = Lock(), ExitStack()
        bundle = open_any(find_bundle(None if engine is None else str(engine)))
        chosen, _rejected = choose_backend(backend)
        self.backend = chosen.name
        self.engine = self._stack.enter_context(
            open_engine(chosen, bundle, batch=batch, streams=streams, raw=raw, gpu=gpu)
        )
        self.geometries = tuple(lane.bundle.geometry for lane in self.engine.lanes)

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """The batch's columns, a float32 column per logit of the engine, and `reason`.

        Images are in `pixels` as a `Decoder` makes them (these columns are left out of the answer),
        or else in `bytes`, or under the names in `filename`. A row that cannot be scored has its
        reason, and NaN or the `failed_logit`; the others have None for a reason.
        """
        columns = as_columns(batch)
        count = row_count(columns)
        scores = _Scores(count, len(self.engine.columns), self._failed)
        with self._lock:
            score(
                (Row(index, f"row {index}") for index in range(count)),
                partial(self._inputs if PIXELS in columns else self._file, columns),
                self.engine,
                scores,
                decode_threads=self._threads,
                limits=self._limits,
            )
        dropped = set(pixel_columns(self.geometries).values())
        kept = {name: column for name, column in columns.items() if name not in dropped}
        by_name = dict(zip(self.engine.columns, scores.logits.T.copy(), strict=True))
        return {**kept, **by_name, REASON: scores.reasons}

    def _file(self, batch: Batch, row: Row) -> bytes:
        return read_row(batch, row.index, self._folder, self._limits.max_bytes)

    def _inputs(self, batch: Batch, row: Row) -> Inputs:
        reason = batch[REASON][row.index] if REASON in batch else None
        if isinstance(reason, str):
            raise ImageError(reason)
        names = pixel_columns(self.geometries)
        return Inputs(tuple(batch[names[each]][row.index] for each in self.geometries))

    def close(self) -> None:
        """Release the engine. It may be called again."""
        self._stack.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._remake, ()


class _Scores:
    """A sink: the logits [rows, K] and the reasons of a batch."""

    def __init__(self, rows: int, width: int, failed: np.float32):
        self.logits: NDArray[np.float32] = np.full((rows, width), failed, np.float32)
        self.reasons: NDArray[Any] = np.full(rows, None, object)
        self.failures = self._written = 0

    def write(self, filename: str, logits: Iterable[np.float32] | None, reason: str | None) -> None:
        """One row: its logits, one per column, or the reason why there are none."""
        if logits is None:
            self.failures += 1
            self.reasons[self._written] = reason or ""
        else:
            self.logits[self._written] = list(logits)
        self._written += 1
