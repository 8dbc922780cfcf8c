"""What every result carries: the machine, the versions, the commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import trtdet
from trtdet.engine.machine import read_machine

TOOLS = ("numpy", "opencv-python-headless", "pillow", "openvino", "torch", "onnx", "tensorrt-rtx")


def describe_run() -> dict[str, Any]:
    """The facts without which a number cannot be repeated."""
    machine = read_machine()
    return {
        "machine": {
            "cpu": machine.cpu,
            "cores": machine.cores,
            "memory_gib": round(machine.memory_bytes / 2**30, 1),
            "features": [name for name, present in machine.features.items() if present],
        },
        "versions": {
            "trtdet": trtdet.__version__,
            "python": platform.python_version(),
            **{tool: found for tool in TOOLS if (found := _version(tool))},
        },
        "commit": _commit(),
    }


def _version(tool: str) -> str | None:
    try:
        return version(tool)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, marked when files were changed; nothing for an installed package."""
    package = Path(trtdet.__file__).parent.parent  # a checkout's top, or site-packages
    top = _git("-C", str(package), "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != package.resolve():
        return None
    return _git("-C", str(package), "describe", "--always", "--dirty") or None


def _git(*arguments: str) -> str:
    """What git prints; nothing where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
