"""An engine: a bundle or an ensemble, compiled on a backend and ready to score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.backends import TENSORRT, BackendStatus, Session, open_session
from trtdet.engine.bundle import Bundle
from trtdet.engine.decision import AS_IT_IS, Decision, Vote
from trtdet.engine.ensemble import Ensemble, members_of
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.engine.tensorrt import GpuOptions


# Images in a slot of an ensemble on a GPU, whose members' plans may have been compiled for others.
ENSEMBLE_BATCH = 16


@dataclass(frozen=True)
class Lane:
    """One network of an engine: what runs it, how its logits are read."""

    session: Session
    decision: Decision
    bundle: Bundle


class LaneOpener:
    """Opens the lanes of an engine, all in one way."""

    def __init__(
        self,
        backend: BackendStatus,
        *,
        slots: int | None,
        streams: int | None,
        raw: bool,
        gpu: GpuOptions | None,
    ):
        self._backend, self._raw, self._gpu = backend, raw, gpu
        self._slots, self._streams = slots, streams
        self._open: list[Session] = []

    def open(self, bundle: Bundle, batch: int | None) -> Lane:
        """Compile a network and re-score its probes. Raises what `open_session` raises."""
        session, _drift = open_session(
            self._backend,
            bundle,
            batch=batch,
            slots=self._slots,
            streams=self._streams,
            gpu=self._gpu,
        )
        self._open.append(session)
        return Lane(session, AS_IT_IS if self._raw else bundle.decision, bundle)

    def close(self, lane: Lane) -> None:
        """Let go of a lane that nothing runs on."""
        self._open.remove(lane.session)
        lane.session.close()

    def close_all(self) -> None:
        """Wait for what runs, and let go of every lane."""
        with ExitStack() as stack:  # all, even if one of them fails
            while self._open:
                stack.callback(self._open.pop(0).close)


@dataclass(frozen=True)
class Engine:
    """Lanes with equal slots and batches, and the vote where there are several."""

    lanes: tuple[Lane, ...]
    columns: tuple[str, ...]  # of the output, one per logit
    vote: Vote | None = None
    opener: LaneOpener | None = None  # None: its lanes were opened by hand

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
    slots: int | None = None,
    streams: int | None = None,
    raw: bool = False,
    gpu: GpuOptions | None = None,
) -> Iterator[Engine]:
    """Compile every network and re-score its probes; everything is closed when the block ends.

    `batch` None: the bundle's own, with TensorRT that of its plan. `slots`, `streams`, `gpu`: as
    in `open_session`. `raw`: the network's logit without the bundle's decision. Raises DriftError
    when a network does not give the scores that its bundle records, InputError for a batch that it
    cannot have, and for a raw ensemble.
    """
    members = members_of(bundle)
    if raw and isinstance(bundle, Ensemble):
        raise InputError(f"{bundle.name} is an ensemble, and has no logit but its vote's")
    native = [member.name for member in members if member.tiling]
    if native and batch not in (None, 1):
        raise InputError(
            f"{native[0]} sees images at their native resolution, one at a time: leave --batch out"
        )
    if batch is None and backend.name == TENSORRT and len(members) > 1:
        batch = 1 if native else ENSEMBLE_BATCH  # all must have the same
    elif batch is None and backend.name != TENSORRT:
        batch = min(member.batch for member in members)
    opener = LaneOpener(backend, slots=slots, streams=streams, raw=raw, gpu=gpu)
    try:
        lanes = tuple(opener.open(member, batch) for member in members)
        vote = bundle.vote if isinstance(bundle, Ensemble) else None
        yield Engine(lanes, bundle.outputs, vote, opener)
    finally:
        opener.close_all()
