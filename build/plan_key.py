"""What a compiled plan depends on, as a value: two plans with the same key are interchangeable.

A plan is used only where every field of its key is the same. Whatever could change a score, or make
another TensorRT refuse the plan, is therefore a field; whatever could not (the place of the graph,
the time of the build, the machine's name) is kept out, or equal plans would be compiled twice.

Limits: a graph is one file, as `trtdet build` writes it; weights in files of their own are not
hashed. The key does not cover the NVIDIA driver, because TensorRT does not tie a plan to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Flavour = Literal["tensorrt", "tensorrt-rtx"]

# Raised whenever equal keys of an older trtdet would mean other plans, so that none of them is met.
SCHEMA = 1

# Enough that two plans in one folder never share a name: 48 bits. The record holds the whole key.
_DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class PlanKey:
    """The identity of a plan. Hashable; equal keys have equal file names."""

    flavour: Flavour  # their plans have different formats
    version: str  # of TensorRT, with its build number: plans do not cross versions
    target: str  # the compute capability, for instance "sm_86"; never "current"
    graph_sha256: str
    batch: int  # the one batch size that the plan runs
    options: tuple[tuple[str, str], ...]  # sorted (name, value): the builder's settings
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        """For instance `tensorrt-rtx-1.7.1.116-sm_86-b1-0f3a5c7e9b1d.plan`."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        return f"{self.flavour}-{self.version}-{self.target}-b{self.batch}-{digest}.plan"

    def to_json(self) -> dict[str, Any]:
        """The key as a plan's record holds it."""
        return {**asdict(self), "options": dict(self.options)}
