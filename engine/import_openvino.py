"""OpenVINO without its telemetry, which on import writes into the home folder and calls home.

OpenVINO has a stub of its own for where the telemetry package is missing; so it is made missing. It
also fails where there is no home folder, as in many containers.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

__all__ = ["ov"]
