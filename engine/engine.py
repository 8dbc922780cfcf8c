"""An engine: a bundle or an ensemble, compiled on a backend and ready to score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import BackendStatus, Session, open_session
from trtdet.engine.bundle import Bundle
from trtdet.engine.decision import AS_IT_IS, Decision, Vote
from trtdet.engine.ensemble import Ensemble
from trtdet.engine.geometry import Geometry
from trtdet.errors import InputError


@dataclass(frozen=True)
class Lane:
    """One network of an engine: how it sees an image, what runs it, how its logits are read."""

    session: Session
    geometry: Geometry
    decision: Decision


@dataclass(frozen=True)
class Engine:
    """Lanes with equal slots and batches, and the vote where there are several."""

    lanes: tuple[Lane, ...]
    columns: tuple[str, ...]  # of the output, one per logit
    vote: Vote | None = None

    @property
    def name(self) -> str:
        """The backend's, with its version."""
        return self.lanes[0].session.name

    @property
    def slots(self) -> int:
        """Batches in flight."""
        return min(lane.session.slots for lane in self.lanes)

    @property
    def batch(self) -> int:
        """Images in a slot."""
        return self.lanes[0].session.batch

    def blank(self, slot: int, position: int) -> None:
        """No image in that place."""
        for lane in self.lanes:
            lane.session.blank(slot, position)

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's answer, float32 [batch, len(columns)]."""
        decided = [lane.decision.apply(lane.session.logits(slot)) for lane in self.lanes]
        if self.vote is None:
            return decided[0]
        return self.vote.apply([member[:, 0] for member in decided])[:, None]


@contextmanager
def open_engine(
    backend: BackendStatus,
    bundle: Bundle | Ensemble,
    *,
    batch: int | None = None,
    raw: bool = False,
) -> Iterator[Engine]:
    """Compile every network and re-score its probes; everything is closed when the block ends.

    `batch` None: the bundle's own. `raw`: the network's logit without the bundle's decision. Raises
    DriftError when a network does not give the scores that its bundle records, InputError for a
    batch that it cannot have, and for a raw ensemble.
    """
    members = bundle.members if isinstance(bundle, Ensemble) else (bundle,)
    if raw and isinstance(bundle, Ensemble):
        raise InputError(f"{bundle.name} is an ensemble, and has no logit but its vote's")
    native = [member.name for member in members if member.tiling]
    if native and batch not in (None, 1):
        raise InputError(
            f"{native[0]} sees images at their native resolution, one at a time: leave --batch out"
        )
    if batch is None:
        batch = min(member.batch for member in members)
    with ExitStack() as stack:
        lanes = []
        for member in members:
            session, _drift = open_session(backend, member, batch=batch)
            stack.enter_context(closing(session))
            decision = AS_IT_IS if raw else member.decision
            lanes.append(Lane(session, member.geometry, decision))
        columns = ("logit",) if isinstance(bundle, Ensemble) else bundle.outputs
        yield Engine(tuple(lanes), columns, bundle.vote if isinstance(bundle, Ensemble) else None)
