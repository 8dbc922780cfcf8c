"""trtdet: synthetic-image detectors, from a paper's checkpoint to an engine that scores images."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`trtdet.Scorer`, imported when it is asked for: `import trtdet` stays light."""
    if name == "Scorer":
        return importlib.import_module("trtdet.engine.scorer").Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
