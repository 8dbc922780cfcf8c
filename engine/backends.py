"""Backends: what runs a bundle's graph. The choice is explicit, and a fallback is never silent."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.bundle import Bundle, Drift, load_probes, measure_drift
from trtdet.engine.geometry import Geometry
from trtdet.errors import BackendError, DriftError

OnDone = Callable[[int], None]  # called with the slot, from a thread of the backend


class Session(Protocol):
    """A compiled graph with a fixed number of slots, each one batch of fixed shape.

    The caller fills `images(slot)`, calls `start(slot)`, and owns the slot again once `on_done`
    was called with it. `start` may be called from any thread. Whoever opens a session closes it.
    """

    name: str  # for instance "openvino 2026.4 CPU"
    slots: int
    batch: int
    on_done: OnDone

    def images(self, slot: int) -> NDArray[np.uint8]:
        """The slot's input, uint8 [batch, H, W, 3], to be written in place."""

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The slot's result, float32 [batch], valid until the slot is started again."""

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
BACKENDS = ("tensorrt", "openvino")


def backend_status(name: str) -> BackendStatus:
    """Look for a backend without starting it; OpenVINO is imported, which takes a moment."""
    if name == "tensorrt":
        return BackendStatus(name, _tensorrt_reason())
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
        status = backend_status(name)
        if status.reason is None:
            return status, rejected
        rejected.append(status)
    reasons = "; ".join(f"{status.name}: {status.reason}" for status in rejected)
    raise BackendError(f"no backend can run here ({reasons}). `trtdet doctor` says more")


def compile_graph(
    backend: BackendStatus, graph: Path, geometry: Geometry, *, batch: int, slots: int | None = None
) -> Session:
    """Compile an ONNX graph on a backend. Raises BackendError when it does not compile."""
    from trtdet.engine.openvino import OpenVinoSession  # the only one that runs yet

    return OpenVinoSession(graph, geometry, batch=batch, slots=slots)


def open_session(
    backend: BackendStatus, bundle: Bundle, *, batch: int, slots: int | None = None
) -> tuple[Session, Drift]:
    """Compile the bundle's graph on a backend and re-score its probes.

    Raises DriftError when a probe's logit lies further from the reference than the bundle allows.
    """
    session = compile_graph(backend, bundle.graph, bundle.geometry, batch=batch, slots=slots)
    try:
        probes = load_probes(bundle.path)
        drift = measure_drift(infer(session, probes.images), probes.logits, session.name)
        refuse_drift(drift, bundle.tolerance, bundle.name)
    except BaseException:
        session.close()
        raise
    return session, drift


def refuse_drift(drift: Drift, tolerance: float, name: str) -> None:
    """Raise DriftError when a drift is larger than rounding explains."""
    if not drift.max_relative <= tolerance:
        raise DriftError(
            f"{name} on {drift.backend} drifts by {drift.max_abs:.3g} from the reference logits of "
            f"its probes, over its tolerance of {tolerance:g} * (1 + |logit|), so its scores would "
            "be wrong. Build it again on this machine; if that does not help, report it with what "
            "`trtdet doctor` prints"
        )


def infer(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images uint8 [N, H, W, 3] one batch after the other: float32 [N]. For small N."""
    logits = np.empty(len(images), np.float32)
    done = threading.Event()
    on_done, session.on_done = session.on_done, lambda _slot: done.set()
    try:
        for first in range(0, len(images), session.batch):
            part = images[first : first + session.batch]
            session.images(0)[: len(part)] = part
            session.images(0)[len(part) :] = 0
            done.clear()
            session.start(0)
            while not done.wait(timeout=1.0):
                session.check()
            logits[first : first + len(part)] = session.logits(0)[: len(part)]
    finally:
        session.on_done = on_done
    return logits


def _tensorrt_reason() -> str | None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        return "TensorRT is not installed (pip install 'trtdet[tensorrt]')"
    return "this version compiles TensorRT plans, but does not score with them yet"
