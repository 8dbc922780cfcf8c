"""What a compiled plan depends on, as a value: two plans with the same key are interchangeable.

Whatever could change a score, or make another TensorRT refuse the plan, is a field of the key;
whatever could not (the place of the graph, the time of the build, the machine's name) is kept out,
or equal plans would be compiled twice. Which of the fields a plan must share with what wants to
run it is for `trtdet.engine.plans`.

Limits: a graph is one file, as `trtdet build` writes it; weights in files of their own are not
hashed. The key does not cover the NVIDIA driver, because TensorRT does not tie a plan to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, get_args

from trtdet.engine.tensorrt_library import Flavour

# Raised whenever equal keys of an older trtdet would mean other plans, so that none of them is met.
SCHEMA = 1

# Names of options that say what a plan can run, and where.
PROFILE = "profile"  # "1,8,32": the least, the best and the largest batch
SIDES = "sides"  # "2,1024": at native resolution, the shortest and the longest side of a tile
COMPILED_ON = "compiled_on"  # the GPU whose kernels were timed
VERSION_COMPATIBLE = "version_compatible"  # "on": newer versions and the lean runtime take it, too

# Enough that two plans in one folder never share a name: 48 bits. The record holds the whole key.
_DIGEST_CHARACTERS = 12

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PlanKey:
    """The identity of a plan. Hashable; equal keys have equal file names."""

    flavour: Flavour  # their plans have different formats
    version: str  # of TensorRT, with its build number: plans do not cross versions
    target: str  # the compute capability, for instance "sm_86"; never "current"
    graph_sha256: str
    batch: int  # the one batch size that the plan runs, or that it runs best
    options: tuple[tuple[str, str], ...]  # sorted (name, value): the builder's settings
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        """For instance `tensorrt-rtx-1.7.1.116-sm_86-b1-0f3a5c7e9b1d.plan`."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        batch = (self.option(PROFILE) or str(self.batch)).replace(",", "-")
        return f"{self.flavour}-{self.version}-{self.target}-b{batch}-{digest}.plan"

    @property
    def batches(self) -> tuple[int, int]:
        """The smallest and the largest batch that the plan runs."""
        return _ends(self.option(PROFILE) or str(self.batch))

    @property
    def sides(self) -> tuple[int, int] | None:
        """The shortest and the longest side of a tile in pixels; None for images of one size."""
        text = self.option(SIDES)
        return None if text is None else _ends(text)

    def option(self, name: str) -> str | None:
        """The value of an option that differs from the default."""
        return dict(self.options).get(name)

    def to_json(self) -> dict[str, Any]:
        """The key as a plan's record holds it."""
        return {**asdict(self), "options": dict(self.options)}

    @staticmethod
    def from_json(record: Any) -> PlanKey:
        """The inverse of `to_json`. Raises ValueError for what is none."""
        try:
            options = tuple(sorted(record["options"].items()))
            key = PlanKey(**{**record, "options": options})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no plan's key ({error!r})") from error
        texts = [
            key.version,
            key.target,
            key.graph_sha256,
            *(text for pair in options for text in pair),
        ]
        readable = all(isinstance(text, str) and text.isprintable() for text in texts)
        if key.flavour not in get_args(Flavour) or not readable:  # it may be shown on a terminal
            raise ValueError("a plan's key with a value of another kind")
        if not _SHA256.fullmatch(key.graph_sha256) or "/" in key.version + key.target:
            raise ValueError("a plan's key that names no graph")
        if type(key.batch) is not int or type(key.schema) is not int:
            raise ValueError("a plan's key with a batch that is no number")
        _ = key.batches, key.sides  # ValueError where they are no numbers
        return key


def _ends(text: str) -> tuple[int, int]:
    """The first and the last of the numbers. Raises ValueError where one is none."""
    numbers = [int(part) for part in text.split(",")]
    return numbers[0], numbers[-1]
