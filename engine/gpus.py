"""Several GPUs of one machine: which, and what runs on each."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtdet.engine.backends import TENSORRT, BackendStatus
from trtdet.engine.fleet import Fleet, open_fleet
from trtdet.engine.fleet_worker import WorkerOptions
from trtdet.engine.machine import core_count
from trtdet.errors import InputError


def open_gpus(
    devices: list[int] | str,
    backend: BackendStatus,
    bundle: Path,
    *,
    decode_threads: int | None,
    **how: Any,
) -> AbstractContextManager[Fleet]:
    """A process for each of the GPUs, or for "all"; they share the machine's cores.

    `how`: see `trtdet.engine.runner.open_local`. Raises InputError where no GPU would run them.
    """
    if backend.name != TENSORRT:
        raise InputError(f"--devices is for GPUs, and {backend.name} would score: leave it out")
    if not isinstance(devices, list):
        devices = _every_gpu()
    threads = max(1, (decode_threads or core_count()) // len(devices))
    return open_fleet(
        [
            WorkerOptions(
                f"GPU {device}",
                backend.name,
                bundle,
                {**how, "decode_threads": threads, "gpu": replace(how["gpu"], device=device)},
            )
            for device in devices
        ]
    )


def _every_gpu() -> list[int]:
    from trtdet.engine.cuda import load_driver

    driver = load_driver()
    driver.init()
    return list(range(driver.Device.count()))
