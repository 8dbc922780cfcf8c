"""Backends: what runs a bundle's graph. The choice is explicit, and a fallback is never silent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.bundle import Bundle, Drift, load_probes, measure_drift
from trtdet.engine.geometry import Geometry, Pixels
from trtdet.engine.steps import Rgb
from trtdet.engine.tiles import Tiling
from trtdet.errors import BackendError, BundleError, DriftError

if TYPE_CHECKING:
    from trtdet.engine.tensorrt import GpuOptions

OnDone = Callable[[int], None]  # called with the slot, from a thread of the backend


class Session(Protocol):
    """A compiled graph with a fixed number of slots, each one batch of fixed shape.

    The caller fills every place of the batch by `load`, `put` or `blank`, calls `start(slot)`, and
    owns the slot again once `on_done` was called with it. All of these may be called from any
    thread. Whoever opens a session closes it.
    """

    name: str  # for instance "openvino 2026.4 CPU"
    slots: int
    batch: int
    on_done: OnDone

    def load(self, slot: int, position: int, rgb: Rgb) -> None:
        """A decoded image [h, w, 3] into place `position` of the slot's batch.

        The session brings it to the detector's size. Raises ImageError where that cannot be.
        """

    def put(self, slot: int, position: int, views: Pixels) -> None:
        """An image's inputs [views, H, W, 3] into place `position` of the slot's batch."""

    def blank(self, slot: int, position: int) -> None:
        """Nothing in that place: its logits are not read."""

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch, K], valid until the slot is started again."""

    def start(self, slot: int) -> None:
        """Run the slot's batch; returns at once."""

    def check(self) -> None:
        """Raise BackendError if a running slot has failed and will never be done."""

    def close(self) -> None:
        """Wait for the running slots and release everything."""


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can score here, and why not if it cannot."""

    name: str
    reason: str | None  # None: it can
    version: str = ""


# Best first. `auto` takes the first that can run, and says why the ones before it cannot.
TENSORRT, OPENVINO = "tensorrt", "openvino"
BACKENDS = (TENSORRT, OPENVINO)


def backend_status(name: str, *, every_reason: bool = True) -> BackendStatus:
    """Whether a backend could start; the libraries are imported, which takes a moment.

    Without `every_reason` the first that speaks against it will do.
    """
    if name == TENSORRT:
        return _tensorrt_status(every_reason)
    try:
        from trtdet.engine.import_openvino import ov
    except ImportError as error:
        return BackendStatus(name, f"{error} (pip install 'trtdet[cpu]')")
    return BackendStatus(name, None, ov.__version__.split("-")[0])


def choose_backend(requested: str) -> tuple[BackendStatus, list[BackendStatus]]:
    """The backend to use for `requested` ("auto" or a name), and the better ones rejected.

    Raises BackendError when the named one, or every one, cannot run.
    """
    rejected: list[BackendStatus] = []
    for name in BACKENDS if requested == "auto" else (requested,):
        status = backend_status(name, every_reason=requested != "auto")
        if status.reason is None:
            return status, rejected
        rejected.append(status)
    reasons = "; ".join(f"{status.name}: {status.reason}" for status in rejected)
    raise BackendError(f"no backend can run here ({reasons}). `trtdet doctor` says more")


def compile_graph(
    backend: BackendStatus,
    graph: Path,
    geometry: Geometry,
    tiling: Tiling | None = None,
    *,
    batch: int,
    slots: int | None = None,
    streams: int | None = None,
) -> Session:
    """Compile an ONNX graph on a backend. Raises BackendError when it does not compile.

    With a `tiling` images have any size, and a batch is one of them. `streams` None: as many as
    cores. TensorRT runs plans, which are compiled by `trtdet.build`.
    """
    if backend.name != OPENVINO:
        raise BackendError(f"{backend.name} runs no graph: `trtdet compile` makes a plan of it")
    if tiling is not None:
        from trtdet.engine.openvino_tiles import OpenVinoTileSession

        return OpenVinoTileSession(graph, geometry, tiling, slots=slots, streams=streams)
    from trtdet.engine.openvino import OpenVinoSession

    return OpenVinoSession(graph, geometry, batch=batch, slots=slots, streams=streams)


def open_session(
    backend: BackendStatus,
    bundle: Bundle,
    *,
    batch: int | None = None,
    slots: int | None = None,
    streams: int | None = None,
    gpu: GpuOptions | None = None,
) -> tuple[Session, Drift]:
    """Open the bundle on a backend and re-score its probes.

    `batch` None: the bundle's own, with TensorRT that of its plan. `slots` and `streams` None: what
    suits the machine; with TensorRT `gpu` has them. Raises DriftError when a probe's
    logit lies further from the reference than the bundle allows.
    """
    if backend.name == TENSORRT:
        from trtdet.engine.open_tensorrt import open_tensorrt

        session: Session = open_tensorrt(bundle, batch=batch, options=gpu)
    else:
        session = compile_graph(
            backend,
            bundle.graph,
            bundle.geometry,
            bundle.tiling,
            batch=batch or bundle.batch,
            slots=slots,
            streams=streams,
        )
    try:
        return session, score_probes(session, bundle)
    except BaseException:
        session.close()
        raise


def score_probes(session: Session, bundle: Bundle) -> Drift:
    """How far a session's logits are from the bundle's. Raises DriftError where that is too far."""
    logits, expected = probe_logits(session, bundle)
    drift = measure_drift(logits, expected, session.name)
    refuse_drift(drift, bundle.tolerance, bundle.name)
    return drift


def probe_logits(
    session: Session, bundle: Bundle
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The probes' logits as a session gives them, and those that it has to give, both [P, K].

    Of an engine in fewer bits that was judged on this very GPU, those that it gave then.
    """
    probes = load_probes(bundle.path)
    judged: NDArray[np.float32] | None = getattr(session, "probe_logits", None)
    logits = infer(session, [image[None] for image in probes.images])
    if logits.shape[1] != len(bundle.outputs):
        raise BundleError(
            f"{bundle.name} gives {logits.shape[1]} logits and names {len(bundle.outputs)}: "
            "build it again"
        )
    return logits, probes.logits if judged is None else judged


def refuse_drift(drift: Drift, tolerance: float, name: str) -> None:
    """Raise DriftError when a drift is larger than rounding explains."""
    if not drift.max_relative <= tolerance:
        raise DriftError(
            f"{name} on {drift.backend} drifts by {drift.max_abs:.3g} from the reference logits of "
            f"its probes, over its tolerance of {tolerance:g} * (1 + |logit|), so its scores would "
            "be wrong. Build it again on this machine; if that does not help, report it with what "
            "`trtdet doctor` prints"
        )


def infer(session: Session, images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Score images, each the views [views, H, W, 3] of one: float32 [N, K]. For small N.

    A single view of a detector that takes several stands for all of them.
    """
    batches = [
        images[first : first + session.batch] for first in range(0, len(images), session.batch)
    ]
    waiting = deque(range(len(batches)))
    free = deque(range(session.slots))
    running: dict[int, int] = {}  # slot: its batch
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(batches)
    ended: SimpleQueue[int] = SimpleQueue()
    on_done, session.on_done = session.on_done, ended.put
    try:
        while waiting or running:
            while free and waiting:
                slot = free.popleft()
                batch = batches[running.setdefault(slot, waiting.popleft())]
                fill(session, slot, batch)
                session.start(slot)
            try:
                slot = ended.get(timeout=1.0)
            except Empty:
                session.check()
                continue
            index = running.pop(slot)
            logits[index] = session.logits(slot)[: len(batches[index])].copy()
            free.append(slot)
    finally:
        session.on_done = on_done
    return np.concatenate(logits)


def run_graph(
    backend: BackendStatus,
    graph: Path,
    geometry: Geometry,
    tiling: Tiling | None,
    images: Sequence[Pixels],
    *,
    batch: int = 1,
    slots: int | None = None,
) -> NDArray[np.float32]:
    """Compile a graph, `infer` on images, and close it: float32 [N, K]."""
    session = compile_graph(backend, graph, geometry, tiling, batch=batch, slots=slots)
    with closing(session):
        return infer(session, images)


def fill(session: Session, slot: int, images: Sequence[Pixels]) -> None:
    """Put images into a slot, and blank the rest of its batch."""
    for position in range(session.batch):
        if position < len(images):
            session.put(slot, position, images[position])
        else:
            session.blank(slot, position)


def _tensorrt_status(every_reason: bool) -> BackendStatus:
    from trtdet.engine.tensorrt_library import load_library
    from trtdet.engine.tensorrt_status import missing_pieces

    if missing := list(islice(missing_pieces(), None if every_reason else 1)):
        return BackendStatus(TENSORRT, "; ".join(missing))
    return BackendStatus(TENSORRT, None, str(load_library("tensorrt", "tensorrt-rtx", lean=True)))
