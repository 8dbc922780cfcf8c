"""The bundle: a folder with everything that the runtime needs to score, and nothing else.

bundle.json   what it is, how it sees an image, the hashes of what it was made from
model.onnx    NHWC in, float32 logits out; it normalises by itself
ranges.json   INT8: the activation ranges, and what they depend on
probes.npz    generated inputs with the logits that this engine must give: in float32 those of the
              paper's network, in fewer bits those of the engine that was compared with it
gate.npz      fewer bits: the logits that were compared with the paper's network
card.json     optional: what it was trained on, what it reaches, what it is not for
plans/        compiled TensorRT plans, each under its key

The graph of a detector with a fixed input takes `image` [batch, H, W, 3], uint8 (float32 after a
resize that does not round), and gives `logit` [batch, K]. At native resolution it takes one tile,
`image` [1, h, w, 3], the weights of its cells, `rows` [h'] and `columns` [w'], and `carry` [1, C],
what earlier tiles of the image came to; it gives `pooled` [1, C], with this tile, and the `logit`
of that. See `trtdet.engine.tiles`.

An ensemble is a folder with a record of its own and its members, whole bundles, in `members/`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.atomic import atomic_text
from trtdet.engine.decision import AS_IT_IS, Decision
from trtdet.engine.digest import sha256_file
from trtdet.engine.geometry import Geometry, geometry_from_json, geometry_to_json
from trtdet.engine.store import RECORD
from trtdet.engine.tiles import Blocks, Tiling
from trtdet.errors import BundleError

# Raised whenever an older reader would misread a newer bundle.
SCHEMA = 2

GRAPH, PROBES, PLANS = "model.onnx", "probes.npz", "plans"
CARD, GATE = "card.json", "gate.npz"
INPUT_NAME, OUTPUT_NAME = "image", "logit"
ROWS, COLUMNS, CARRY, POOLED = "rows", "columns", "carry", "pooled"


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
    outputs: tuple[str, ...] = ("logit",)  # the columns of the output: one per logit
    decision: Decision = AS_IT_IS
    tiling: Tiling | None = None  # at native resolution
    decision_record: dict[str, Any] = field(default_factory=dict)  # what it was fitted on
    precision_report: dict[str, Any] = field(default_factory=dict)  # of fewer bits: what they cost
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
        record["outputs"] = list(self.outputs)
        return record


@dataclass(frozen=True)
class Probes:
    """Generated inputs with the logits of the paper's network."""

    images: NDArray[np.uint8]  # [P, H, W, 3]
    logits: NDArray[np.float32]  # [P, K]


def write_record(bundle: Bundle, folder: Path) -> None:
    """Write `bundle.json` into `folder`."""
    (folder / RECORD).write_text(_record_text(bundle), encoding="utf-8", errors="surrogateescape")


def _record_text(bundle: Bundle) -> str:
    return json.dumps(bundle.to_json(), indent=2, ensure_ascii=False) + "\n"


def replace_record(bundle: Bundle) -> None:
    """Write the record of a bundle that is in use: whole, or not at all."""
    with atomic_text(bundle.path / RECORD) as file:
        file.write(_record_text(bundle))


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its files against their hashes.

    Raises BundleError when it is no bundle, of another schema, incomplete or altered.
    """
    record = read_record(folder)
    if "members" in record:
        raise BundleError(f"{folder} is an ensemble: this needs one of {folder}/members")
    try:
        bundle = _from_json(record, folder)
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


def read_record(folder: Path) -> dict[str, Any]:
    """The record in `folder`, of this schema. Raises BundleError when there is none."""
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
    return record


def _from_json(record: dict[str, Any], folder: Path) -> Bundle:
    """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a damaged record."""
    tiling = record["tiling"]
    if tiling is not None:
        blocks = tiling["blocks"]
        tiling = Tiling(**{**tiling, "blocks": blocks and Blocks(**blocks)})
    parsed = {
        "geometry": geometry_from_json(record["geometry"]),
        "decision": Decision(**record["decision"]),
        "outputs": tuple(record["outputs"]),
        "tiling": tiling,
    }
    bundle = Bundle(**{**record, **parsed}, path=folder)
    texts = (bundle.name, bundle.detector, bundle.precision, *bundle.outputs)
    if not all(isinstance(text, str) for text in texts) or not isinstance(record["outputs"], list):
        raise ValueError("a name is no text")
    if type(bundle.batch) is not int or bundle.batch < 1 or (tiling and bundle.batch > 1):
        raise ValueError(f"a batch of {bundle.batch}")
    if not 0.0 <= bundle.tolerance < 1.0 or not bundle.outputs:
        raise ValueError("tolerance or outputs are out of range")
    if (bundle.geometry.height is None) != (tiling is not None):
        raise ValueError("native resolution needs a tiling, and nothing else does")
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
    """Compare an engine's logits with the reference; a NaN is infinite drift.

    Raises BundleError where they are not of one shape: numpy would compare each with every other.
    """
    if logits.shape != reference.shape:
        raise BundleError(
            f"the bundle's probes have logits of shape {list(reference.shape)}, and the network "
            f"gives {list(logits.shape)}: build it again"
        )
    delta = np.abs(logits.astype(np.float64) - reference.astype(np.float64))
    delta = np.where(np.isfinite(delta), delta, np.inf)
    relative = delta / (1.0 + np.abs(reference.astype(np.float64)))
    return Drift(float(delta.max()), float(relative.max()), backend)
