"""The spec of a graph from elsewhere: what `trtdet build --onnx` cannot see in the graph itself.

A TOML file: names and licence at the top, then how pixels reach the graph (`[input]`,
`[[geometry]]`, `[normalization]`) and what comes out (`[output]`). README.md has an example, and
docs/onnx.md every key.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import step_from_record
from trtdet.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Layout = Literal["NHWC", "NCHW"]
Dtype = Literal["float32", "float16", "uint8"]
Channels = Literal["RGB", "BGR"]
Meaning = Literal["logit", "probability", "logits", "probabilities"]
Side = Literal["synthetic", "real"]

ONE_PER_CLASS = ("logits", "probabilities")
TEXTS = ("title", "paper", "repository", "licence", "trained_on", "note")

# As for the detectors of the registry.
DEFAULT_TOLERANCE = 1e-4

_UNSET: Any = object()


@dataclass(frozen=True)
class GraphInput:
    """How the graph takes images."""

    name: str | None  # None: its only one
    layout: Layout
    dtype: Dtype
    channels: Channels


@dataclass(frozen=True)
class Scaling:
    """`(x / scale - mean) / std`, in float32 and this order; per channel in RGB order."""

    scale: float
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class GraphOutput:
    """What the graph gives for an image."""

    name: str | None  # None: its only one
    meaning: Meaning
    positive: Side = "synthetic"  # what a large value speaks for: of the one, or at `index`
    index: int | None = None  # where there is a value per class


@dataclass(frozen=True)
class ForeignSpec:
    """Everything that a spec file says."""

    path: Path
    name: str
    input: GraphInput
    geometry: Geometry
    scaling: Scaling | None  # None: the graph takes bytes
    output: GraphOutput
    tolerance: float = DEFAULT_TOLERANCE
    title: str = ""
    paper: str = ""
    repository: str = ""
    licence: str = ""
    trained_on: str = ""
    note: str = ""


def read_spec(path: Path) -> ForeignSpec:
    """Read and check a spec file.

    Raises InputError that names the key, what it is, and what it can be.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the spec {path}: {error.strerror or error}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise InputError(f"the spec {path} is not TOML: {error}") from error
    top = _Table(path, "", entries)
    graph_input = _input(top.table("input"))
    geometry = _geometry(top)
    scaling = None
    if graph_input.dtype == "uint8":
        if "normalization" in entries:
            raise top.wrong("[normalization]", "a graph with uint8 input gets bytes: leave it out")
        if geometry.dtype is not np.uint8:
            raise top.wrong("[input] dtype", "is uint8, but TensorFlow's resize gives float32")
    else:
        scaling = _scaling(top.table("normalization"))
    spec = ForeignSpec(
        path=path,
        name=top.text("name"),
        input=graph_input,
        geometry=geometry,
        scaling=scaling,
        output=_output(top.table("output")),
        tolerance=top.number("tolerance", DEFAULT_TOLERANCE, above=0.0),
        **{key: top.text(key, "") for key in TEXTS},
    )
    top.refuse_others("name", *TEXTS, "tolerance", "input", "geometry", "normalization", "output")
    return spec


@dataclass(frozen=True)
class _Table:
    """A table of the file, read key by key. Its methods raise InputError."""

    path: Path
    name: str  # "" at the top, or "[input]"
    entries: dict[str, Any]

    def wrong(self, key: str, reason: str) -> InputError:
        """The error to raise about a key."""
        return InputError(f"{self.path}: {f'{self.name} {key}'.strip()}: {reason}")

    def get(self, key: str, default: Any, allowed: str) -> Any:
        """The value as TOML has it."""
        value = self.entries.get(key, default)
        if value is _UNSET:
            raise self.wrong(key, f"is missing; it is {allowed}")
        return value

    def text(self, key: str, default: Any = _UNSET) -> Any:
        """A text, not empty unless that is the default."""
        value = self.get(key, default, "a text")
        if not isinstance(value, str | None) or (value == "" != default):
            raise self.wrong(key, f"is {value!r}, not a text")
        return value

    def choice(self, key: str, literal: Any, default: Any = _UNSET) -> Any:
        """One of a Literal's."""
        choices = " or ".join(f'"{choice}"' for choice in get_args(literal))
        value = self.get(key, default, choices)
        if value not in get_args(literal):
            raise self.wrong(key, f"is {value!r}, not {choices}")
        return value

    def number(self, key: str, default: Any = _UNSET, *, above: float) -> float:
        """A finite number above a limit."""
        value = self.get(key, default, f"a number above {above:g}")
        if not _is_number(value) or value <= above:
            raise self.wrong(key, f"is {value!r}, not a number above {above:g}")
        return float(value)

    def three(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        """A number per channel."""
        value = self.entries.get(key, list(default))
        if not (isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))):
            raise self.wrong(key, f"is {value!r}, not three numbers: red, green, blue")
        red, green, blue = map(float, value)
        return red, green, blue

    def table(self, key: str) -> _Table:
        """A table in this one; it has to be there."""
        value = self.entries.get(key)
        if not isinstance(value, dict):
            what = "is missing" if value is None else f"is {value!r}, not a table"
            raise self.wrong(f"[{key}]", what)
        return _Table(self.path, f"[{key}]", value)

    def refuse_others(self, *known: str) -> None:
        """Keys that nobody reads are spelling mistakes."""
        if unknown := [key for key in self.entries if key not in known]:
            raise self.wrong(unknown[0], f"there is no such key, but {', '.join(known)}")


def _input(table: _Table) -> GraphInput:
    table.refuse_others("name", "layout", "dtype", "channels")
    return GraphInput(
        table.text("name", None),
        table.choice("layout", Layout),
        table.choice("dtype", Dtype, "float32"),
        table.choice("channels", Channels, "RGB"),
    )


def _geometry(top: _Table) -> Geometry:
    records = top.entries.get("geometry")
    if not isinstance(records, list) or not records:
        raise top.wrong("[[geometry]]", 'is missing: a step such as kind = "center_crop"')
    steps = []
    for number, record in enumerate(records, 1):
        try:
            steps.append(step_from_record(record))
        except ValueError as error:
            raise top.wrong(f"[[geometry]] step {number}", str(error)) from error
    try:
        geometry = Geometry(tuple(steps))
    except ValueError as error:
        raise top.wrong("[[geometry]]", str(error)) from error
    if geometry.height is None:
        raise top.wrong("[[geometry]]", f'the last step, "{steps[-1]}", does not set the size')
    return geometry


def _scaling(table: _Table) -> Scaling:
    table.refuse_others("scale", "mean", "std")
    scaling = Scaling(
        table.number("scale", above=0.0),
        table.three("mean", Scaling.mean),
        table.three("std", Scaling.std),
    )
    if min(scaling.std) <= 0.0:
        raise table.wrong("std", f"is {list(scaling.std)}, not three numbers above 0")
    return scaling


def _output(table: _Table) -> GraphOutput:
    meaning = table.choice("meaning", Meaning)
    name = table.text("name", None)
    if meaning not in ONE_PER_CLASS:
        table.refuse_others("name", "meaning", "positive")
        return GraphOutput(name, meaning, table.choice("positive", Side, "synthetic"))
    table.refuse_others("name", "meaning", *get_args(Side))
    given = [side for side in get_args(Side) if side in table.entries]
    if len(given) != 1:
        has = " and ".join(given) or "neither"
        raise table.wrong(meaning, f'need "synthetic" or "real", a class\'s number; it has {has}')
    index = table.entries[given[0]]
    if type(index) is not int or index < 0:
        raise table.wrong(given[0], f"is {index!r}, not a class's number: 0, 1 ...")
    return GraphOutput(name, meaning, given[0], index)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
