"""How long kernels took, kept from build to build: TensorRT need not time them again.

    $TRTDET_HOME/timing/<library>-<version>-<target>-<GPU>.cache

The file is the sha256 of TensorRT's own bytes, and these. What is damaged, of another GPU or cannot
be written costs time, never a plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from trtdet.engine.atomic import atomic_bytes
from trtdet.engine.lock import locked
from trtdet.engine.plan_key import COMPILED_ON, PlanKey
from trtdet.engine.store import store_folder

OnLine = Callable[[str], None]

_DIGEST_BYTES = 32


def timing_cache_path(key: PlanKey) -> Path | None:
    """Where the measurements for such plans are kept; None where nothing is measured.

    Ahead of time there is no GPU to time kernels on, and TensorRT-RTX times none: since 1.2 its
    timing cache does nothing.
    """
    device = key.option(COMPILED_ON)
    if device is None or key.flavour == "tensorrt-rtx":
        return None
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{key.flavour} {key.version} {key.target} {device}")
    return store_folder() / "timing" / f"{name}.cache"


def attach_timing_cache(config: Any, path: Path, on_line: OnLine) -> bool:
    """Give the builder what earlier builds measured. False where it has no timing cache."""
    if not hasattr(config, "create_timing_cache"):
        return False
    cache = config.create_timing_cache(_read(path, on_line))
    # No mismatch is ignored: times of another GPU or driver choose the wrong kernels.
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return True
    on_line(f"{path} does not fit this GPU and driver: kernels are timed anew")
    cache = config.create_timing_cache(b"")
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))


def keep_timing_cache(config: Any, path: Path, on_line: OnLine) -> None:
    """Write what the build measured, with what others have measured in the meantime."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), on_wait=lambda: None):
            if written := _read(path, on_line):
                others = config.create_timing_cache(written)
                if others is not None:
                    cache.combine(others, ignore_mismatch=False)
            data = bytes(cache.serialize())
            with atomic_bytes(path) as file:
                file.write(sha256(data).digest() + data)
    except OSError as error:
        on_line(f"the timing cache {path} is not kept: {error.strerror or error}")


def _read(path: Path, on_line: OnLine) -> bytes:
    """TensorRT's bytes; none where there is no such file, or another has been at it."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if sha256(data).digest() != digest:
        on_line(f"{path} is damaged: kernels are timed anew")
        return b""
    return data
