"""Whether a plan is one that can be run, or what is another about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trtdet.engine.plan_key import COMPILED_ON, SCHEMA, VERSION_COMPATIBLE, PlanKey

if TYPE_CHECKING:
    from trtdet.engine.plans import WantedPlan

# (built with, run with): within a major version a version-compatible plan runs on later versions.
# https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
_MAJORS_CROSSED = {(10, 11)}


def differences(key: PlanKey, wanted: WantedPlan) -> list[str]:
    """In words, what keeps `wanted` from running a plan; the weightiest first."""
    there, here = key.option(COMPILED_ON), wanted.device
    least, most = key.batches
    parts = []
    if key.schema != SCHEMA:
        parts.append(f"plans of another trtdet: schema {key.schema} there, {SCHEMA} here")
    if key.graph_sha256 != wanted.graph_sha256:
        parts.append("another graph: the bundle was built again")
    if key.flavour != wanted.flavour:
        parts.append(f"another library: {key.flavour} there, {wanted.flavour} here")
    elif not _version_fits(key, wanted):
        parts.append(_version_difference(key, wanted))
    if key.target != wanted.target:
        parts.append(f"another GPU: {key.target} there, {wanted.target} here")
    elif there is not None and here is not None and there != here:
        parts.append(f"another GPU: {there} there, {here} here")
    if (key.sides is None) != (wanted.tile is None):
        parts.append("another kind of input: images of one size, or tiles")
    elif key.sides and wanted.tile and not key.sides[0] <= wanted.tile <= key.sides[1]:
        parts.append(f"other tiles: up to {key.sides[1]} pixels there, {wanted.tile} here")
    if wanted.batch is not None and not least <= wanted.batch <= most:
        batches = f"{least}" if least == most else f"{least} to {most}"
        parts.append(f"another batch: {batches} there, {wanted.batch} here")
    return parts


def _version_fits(key: PlanKey, wanted: WantedPlan) -> bool:
    compatible = key.option(VERSION_COMPATIBLE) is not None
    if key.version == wanted.version:
        return compatible or not wanted.lean
    if not compatible:
        return False
    there, here = _release(key.version), _release(wanted.version)
    return there <= here if there[0] == here[0] else (there[0], here[0]) in _MAJORS_CROSSED


def _version_difference(key: PlanKey, wanted: WantedPlan) -> str:
    if key.version == wanted.version:
        return "no leave for the lean runtime: it was compiled without --version-compatible"
    return f"another TensorRT version: {key.version} there, {wanted.version} here"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)) or (0,)
