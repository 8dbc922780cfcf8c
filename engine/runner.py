"""What scores rows: this process here, or one process per GPU in `trtdet.engine.fleet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from trtdet.engine.backends import BackendStatus
from trtdet.engine.bundle import Bundle
from trtdet.engine.confine import Confined
from trtdet.engine.decode import Limits
from trtdet.engine.engine import Engine, open_engine
from trtdet.engine.ensemble import Ensemble
from trtdet.engine.machine import core_count
from trtdet.engine.pipeline import Summary, score
from trtdet.engine.reductions import Reduction, reduce_engine, reductions
from trtdet.engine.sink import Sink
from trtdet.engine.table import Row

Resolve = Callable[[Row], Path | Confined]


class Runner(Protocol):
    """An engine with what it takes to score a table."""

    @property
    def name(self) -> str:
        """Of the backend, with its version."""

    @property
    def batch(self) -> int:
        """Images that go through the network together."""

    @property
    def in_flight(self) -> int:
        """Rows that can be begun and not yet written."""

    def score(
        self,
        rows: Iterator[Row],
        resolve: Resolve,
        sink: Sink,
        *,
        on_rows: Callable[[int], None],
        stopping: Callable[[], bool],
    ) -> Summary:
        """Score `rows` into `sink`, in order. See `trtdet.engine.pipeline.score`."""

    def reductions(self) -> list[Reduction]:
        """What can be left out. See `trtdet.engine.reductions`."""

    def reduce(self, reduction: Reduction) -> None:
        """Leave that out from now on."""


@contextmanager
def open_local(
    backend: BackendStatus,
    bundle: Bundle | Ensemble,
    *,
    decode_threads: int | None,
    limits: Limits,
    isolate: bool = False,
    say: Callable[[str], None] = lambda _text: None,
    **how: Any,
) -> Iterator[LocalRunner]:
    """An engine in this process. `how`: see `trtdet.engine.engine.open_engine`.

    `isolate` decodes in sandboxed processes; `say` hears what a user should know about them.
    """
    with open_engine(backend, bundle, **how) as engine:
        yield LocalRunner(
            engine,
            decode_threads=decode_threads or core_count(),
            limits=limits,
            isolate=isolate,
            say=say,
        )


class LocalRunner:
    """An engine in this process."""

    def __init__(self, engine: Engine, **decoding: Any):
        """`decoding`: see `trtdet.engine.pipeline.score`."""
        self._engine, self._decoding = engine, decoding

    @property
    def name(self) -> str:
        """Of the backend, with its version."""
        return self._engine.name

    @property
    def batch(self) -> int:
        """Images that go through the network together."""
        return self._engine.batch

    @property
    def in_flight(self) -> int:
        """Rows that can be begun and not yet written."""
        return self._engine.slots * self._engine.batch

    def score(
        self,
        rows: Iterator[Row],
        resolve: Resolve,
        sink: Sink,
        *,
        on_rows: Callable[[int], None],
        stopping: Callable[[], bool],
    ) -> Summary:
        """See `Runner`."""
        return score(
            rows,
            resolve,
            self._engine,
            sink,
            on_rows=on_rows,
            stopping=stopping,
            **self._decoding,
        )

    def reductions(self) -> list[Reduction]:
        """See `Runner`."""
        return reductions(self._engine)

    def reduce(self, reduction: Reduction) -> None:
        """See `Runner`."""
        self._engine = reduce_engine(self._engine, reduction)
