"""The bundle: a folder with everything that the runtime needs to score, and nothing else.

bundle.json   what it is, how it sees an image, the hashes of what it was made from
model.onnx    uint8 NHWC in, float32 logit out; it normalises by itself
probes.npz    generated inputs with the float32 logits of the paper's network
card.json     optional: what it was trained on, what it reaches, what it is not for
plans/        compiled TensorRT plans, each under its key
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry, geometry_from_json, geometry_to_json
from trtdet.errors import BundleError

# Raised whenever an older reader would misread a newer bundle.
SCHEMA = 1

RECORD, GRAPH, PROBES, PLANS = "bundle.json", "model.onnx", "probes.npz", "plans"
CARD = "card.json"
INPUT_NAME, OUTPUT_NAME = "image", "logit"  # uint8 [batch, H, W, 3], float32 [batch, 1]


@dataclass(frozen=True)
class Drift:
    """How far an engine's logits lay from the reference, over the probes."""

    max_abs: float  # max |delta logit|
    max_relative: float  # max |delta logit| / (1 + |reference|): what a tolerance bounds
    backend: str


@dataclass(frozen=True)
class Bundle:
    """The record of `bundle.json`."""

    name: str
    detector: str
    variant: str
    title: str
    paper: str
    repository: str
    licence: str
    trained_on: str
    note: str
    precision: str
    geometry: Geometry
    normalization: dict[str, list[float]]  # for the reader: the graph does it
    batch: int  # the fixed batch that the engine was compared at
    tolerance: float  # a drift up to tolerance * (1 + |logit|) is rounding
    checkpoint: dict[str, Any]  # file name, sha256, fingerprint
    hashes: dict[str, str]  # sha256 of the files of the bundle
    drift: dict[str, Any]
    tools: dict[str, str]
    schema: int = SCHEMA
    path: Path = field(default=Path(), compare=False)  # the folder; not part of the record

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    @property
    def plans(self) -> Path:
        """The folder of compiled plans; it may not exist."""
        return self.path / PLANS

    def to_json(self) -> dict[str, Any]:
        """The record as `bundle.json` holds it."""
        record = asdict(self)
        del record["path"]
        record["geometry"] = geometry_to_json(self.geometry)
        return record


@dataclass(frozen=True)
class Probes:
    """Generated inputs with the logits of the paper's network."""

    images: NDArray[np.uint8]  # [P, H, W, 3]
    logits: NDArray[np.float32]  # [P]


def write_record(bundle: Bundle, folder: Path) -> None:
    """Write `bundle.json` into `folder`."""
    text = json.dumps(bundle.to_json(), indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", errors="surrogateescape")


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its files against their hashes.

    Raises BundleError when it is no bundle, of another schema, incomplete or altered.
    """
    try:
        text = (folder / RECORD).read_text(encoding="utf-8", errors="surrogateescape")
        record = json.loads(text)
    except FileNotFoundError:
        raise BundleError(
            f"{folder} is not a bundle (it has no {RECORD}): make one with `trtdet build`"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {folder / RECORD}: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise BundleError(
            f"{folder} is a bundle of schema {found}, this trtdet reads schema {SCHEMA}: "
            "build it again, or use the version of trtdet that built it"
        )
    try:
        record["geometry"] = geometry_from_json(record["geometry"])
        bundle = Bundle(**record, path=folder)
        if not (bundle.batch >= 1 and bundle.tolerance >= 0.0):
            raise ValueError("batch or tolerance is out of range")
        expected = {name: str(bundle.hashes[name]) for name in (GRAPH, PROBES)}
        if (folder / CARD).exists() or CARD in bundle.hashes:
            expected[CARD] = str(bundle.hashes[CARD])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / RECORD} is damaged ({error}): build it again") from error
    for name, sha256 in expected.items():
        if not (folder / name).is_file():
            raise BundleError(f"{folder} has no {name}: build it again")
        if sha256_file(folder / name) != sha256:
            raise BundleError(f"{folder / name} was altered after the build: build it again")
    return bundle


def save_probes(probes: Probes, folder: Path) -> None:
    """Write `probes.npz` into `folder`."""
    np.savez_compressed(folder / PROBES, images=probes.images, logits=probes.logits)


def load_probes(folder: Path) -> Probes:
    """Read `probes.npz`; no pickle is ever read."""
    with np.load(folder / PROBES, allow_pickle=False) as arrays:
        return Probes(images=arrays["images"], logits=arrays["logits"])


def load_card(bundle: Bundle) -> dict[str, Any]:
    """The bundle's card; empty where it has none."""
    if CARD not in bundle.hashes:
        return {}
    card: dict[str, Any] = json.loads((bundle.path / CARD).read_text(encoding="utf-8"))
    return card


def measure_drift(
    logits: NDArray[np.float32], reference: NDArray[np.float32], backend: str
) -> Drift:
    """Compare an engine's logits [P] with the reference [P]; a NaN counts as infinite drift."""
    delta = np.abs(logits.astype(np.float64) - reference.astype(np.float64))
    delta = np.where(np.isfinite(delta), delta, np.inf)
    relative = delta / (1.0 + np.abs(reference.astype(np.float64)))
    return Drift(float(delta.max()), float(relative.max()), backend)
