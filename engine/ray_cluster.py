"""A Ray cluster: the connection to it, and how many engines its machines take.

On GPUs there is an engine for each. On CPUs an engine runs as many streams as it has cores, and
claims half of them of Ray: the other half is for decoding and for Ray's own work, and the system
shares the cores out between the two, as within one process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trtdet.errors import BackendError, InputError

# Cores that one engine on a CPU serves, at most: a graph is compiled for each engine.
CORES_PER_ENGINE = 16

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Engines:
    """The engines of a cluster, all alike."""

    count: int
    nodes: int  # machines that may have one
    cpus: int  # that an engine claims of Ray
    gpus: int  # that it has to itself: 1, or none
    streams: int | None  # on a CPU


def import_ray() -> Any:
    """Ray with its data library. Raises BackendError where it is not installed."""
    # Ray reports how it is used to its makers, and its core says on standard error what is of
    # interest to them, unless it was told otherwise before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(f"--ray needs Ray ({error}): pip install 'trtdet[ray]'") from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`; "auto" finds one, "local" starts one.

    Who is connected already stays so. Raises InputError where there is no cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"there is no Ray cluster at '{address}' ({reason}): start one with "
            "`ray start --head`, or give --ray local for this machine alone"
        ) from error
    if handler is not None:  # Ray puts its own in the place of what the command line has
        signal.signal(signal.SIGTERM, handler)
    for each in logging.getLogger("ray.data").handlers:
        if isinstance(each, logging.StreamHandler):  # its log files keep everything
            each.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody answers at a `host:port`: Ray would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


def plan_engines(nodes: list[dict[str, Any]], backend: str) -> Engines:
    """The engines for the nodes that `ray.nodes()` lists. Raises InputError where none fits."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [int(each.get("GPU", 0)) for each in resources]
    if any(gpus) and backend != "openvino":
        return Engines(sum(gpus), sum(map(bool, gpus)), cpus=1, gpus=1, streams=None)
    if backend == "tensorrt":
        raise InputError("no node of the Ray cluster has a GPU: leave --backend out")
    cores = [int(each.get("CPU", 0)) for each in resources]
    # One CPU alone would be the engine's, and nothing would be left to decode on.
    cores = [count for count in cores if count >= 2]
    if not cores:
        raise InputError(
            "no node of the Ray cluster has two CPUs, one for the engine and one for decoding: "
            "start its nodes with `ray start --num-cpus=2`, or more"
        )
    each = min(CORES_PER_ENGINE, *cores) // 2 * 2
    count = sum(has // each for has in cores)
    return Engines(count, len(cores), cpus=each // 2, gpus=0, streams=each)
