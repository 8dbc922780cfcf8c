"""Run a candidate graph on the gate's images: how near it is, and how fast."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trtdet.build.material import Frame, Material
from trtdet.calibration.gate import Comparison, compare_outputs
from trtdet.engine.backends import BackendStatus, Session, compile_graph, infer, run_graph
from trtdet.engine.geometry import Pixels

Logits = NDArray[np.float32]

_TIMED_IMAGES = 24
_TIMED_S = 1.0
_ROUNDS = 3


@dataclass(frozen=True)
class Judge:
    """The reference, and what it takes to compare a graph with it."""

    frame: Frame
    material: Material
    reference: Logits  # [G, K] of the gate's images, before the decision
    backend: BackendStatus

    def open(self, graph: Path) -> Session:
        """The graph, compiled as it will be used."""
        frame = self.frame
        return compile_graph(self.backend, graph, frame.geometry, frame.tiling, batch=frame.batch)

    def logits(self, graph: Path, images: list[Pixels]) -> Logits:
        """The graph's logits [N, K], before the decision."""
        return graph_logits(graph, self.frame, self.backend, images)

    def gate(self, graph: Path) -> Logits:
        """The graph's logits [G, K] on the gate's images, before the decision."""
        return self.logits(graph, self.material.gate)

    def compare(self, logits: Logits) -> dict[str, Comparison]:
        """What `gate` gave, decided, against the reference's."""
        frame, labels = self.frame, self.material.labels
        return compare_outputs(frame.outputs, frame.decision, self.reference, logits, labels)

    def error(self, graph: Path, images: list[Pixels], expected: Logits) -> float:
        """The mean |delta logit| in the reference's deviations, on other images than the gate's."""
        logits = self.logits(graph, images)
        deviation = self.reference.std(axis=0) + np.finfo(np.float32).tiny
        return float((np.abs(logits - expected) / deviation).mean())

    def rate(self, graph: Path) -> float:
        """Images per second from memory, the median of three runs after a warm-up."""
        images = self.material.gate[:_TIMED_IMAGES]
        with closing(self.open(graph)) as session:
            infer(session, images[: session.batch * session.slots])
            return median(_rate(session, images) for _ in range(_ROUNDS))


def graph_logits(graph: Path, frame: Frame, backend: BackendStatus, images: list[Pixels]) -> Logits:
    """What a graph gives for images [views, H, W, 3] each: float32 [N, K]."""
    return run_graph(backend, graph, frame.geometry, frame.tiling, images, batch=frame.batch)


def _rate(session: Session, images: list[Pixels]) -> float:
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _TIMED_S or not count:
        infer(session, images)
        count += len(images)
    return count / elapsed
