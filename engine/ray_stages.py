"""What runs on the nodes of a Ray job: the engine's arrival, and the stage that scores.

Nothing here imports Ray before it is needed: Ray is given plain classes and functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.decoded import FILENAME, REASON
from trtdet.engine.geometry import Geometry
from trtdet.engine.ray_rows import INDEX
from trtdet.engine.scorer import Scorer
from trtdet.engine.shipped import unpack_once


@dataclass(frozen=True)
class ShippedEngine:
    """A bundle in Ray's object store, and how a node opens it."""

    digest: str
    files: Any  # a reference to `ShippedFiles`, which a node fetches where it has not unpacked them
    options: dict[str, Any]  # of `Scorer`

    def open(self) -> Scorer:
        """On a node: the engine, ready to score."""
        import ray

        return Scorer(unpack_once(self.digest, lambda: ray.get(self.files)), **self.options)


@dataclass(frozen=True)
class EngineFacts:
    """What an engine said of itself when a node opened it."""

    name: str  # of the backend, with its version
    backend: str
    batch: int
    columns: tuple[str, ...]
    geometries: tuple[Geometry, ...]


def try_engine(shipped: ShippedEngine) -> EngineFacts:
    """On a node: open the engine as the actors will, and close it."""
    with shipped.open() as scorer:
        engine = scorer.engine
        return EngineFacts(
            engine.name, scorer.backend, engine.batch, engine.columns, scorer.geometries
        )


class ScoreRows:
    """An actor: decoded rows to rows of the output, as an Arrow table of `output_schema`."""

    def __init__(self, shipped: ShippedEngine, schema: Any, failed: float | None, tally: Any):
        self._scorer = shipped.open()
        self._schema, self._failed, self._tally = schema, failed, tally

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Score a batch of a `Decoder`."""
        import pyarrow as pa

        scored = self._scorer(batch)
        failed = np.array([reason is not None for reason in scored[REASON]], bool)
        columns = {
            INDEX: pa.array(scored[INDEX]),
            FILENAME: _names(scored[FILENAME], self._schema.field(FILENAME).type),
            REASON: pa.array(scored[REASON], pa.string()),
        }
        for name in self._scorer.engine.columns:
            logits = np.where(failed, np.float32(self._failed or 0), scored[name])
            columns[name] = pa.array(logits, mask=None if self._failed is not None else failed)
        self._tally.add.remote(len(failed), int(failed.sum()))
        return pa.table([columns[field.name] for field in self._schema], schema=self._schema)


def _names(encoded: NDArray[Any], kind: Any) -> Any:
    """As bytes, or as `ParquetSink` has them: a string cannot hold what is not UTF-8."""
    import pyarrow as pa

    if kind == pa.binary():
        return pa.array(encoded, kind)
    return pa.array([name.decode("utf-8", "backslashreplace") for name in encoded], kind)


def output_schema(columns: tuple[str, ...], names: str) -> Any:
    """Of the output's files: `index`, `filename` ("string" or "binary"), a float32 per logit,
    `reason`."""
    import pyarrow as pa

    return pa.schema(
        [
            (INDEX, pa.int64()),
            (FILENAME, names),
            *((name, pa.float32()) for name in columns),
            (REASON, pa.string()),
        ]
    )
