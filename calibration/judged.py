"""What the gate saw, kept in the bundle: the logits that were compared, not the images.

With them a decision that is fitted later is judged as well, and an engine that is compiled later
can be compared with the paper's network on the very images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.gate import Labels, Limits, compare_outputs, failures_of, finite, verdict
from trtdet.engine.atomic import atomic_bytes
from trtdet.engine.bundle import GATE, Bundle
from trtdet.engine.digest import sha256_file

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """The gate's images by content, and the logits before any decision."""

    images: Sequence[str]  # [G] sha256 of the files
    reference: Logits  # [G, K], of the paper's network
    engine: Logits  # [G, K], of the engine in this bundle
    labels: Labels | None  # [G]


def write_judged(judged: Judged, folder: Path) -> None:
    """Write `gate.npz` into a bundle's folder."""
    arrays: dict[str, Any] = {
        "images": np.array(list(judged.images), np.str_),
        "reference": judged.reference,
        "engine": judged.engine,
    }
    if judged.labels is not None:
        arrays["labels"] = judged.labels
    with atomic_bytes(folder / GATE) as file:
        np.savez_compressed(file, **arrays)


def read_judged(bundle: Bundle) -> Judged | None:
    """What the gate of a bundle saw; None where it has none, or not the one of its build."""
    path = bundle.path / GATE
    try:
        if bundle.hashes[GATE] != sha256_file(path):
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Judged(
                [str(each) for each in arrays["images"]],
                arrays["reference"],
                arrays["engine"],
                arrays.get("labels"),
            )
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        return None


def judged_again(bundle: Bundle) -> dict[str, Any]:
    """The precision report of a bundle at its present decision; as it was without `gate.npz`."""
    report, judged = bundle.precision_report, read_judged(bundle)
    if not report or judged is None:
        return report
    compared = compare_outputs(
        bundle.outputs, bundle.decision, judged.reference, judged.engine, judged.labels
    )
    failures = failures_of(compared, Limits(**report["limits"]))
    row = {name: finite(asdict(one)) for name, one in compared.items()}
    return {
        **report,
        "verdict": verdict(len(judged.images), failures),
        "compared": {bundle.precision: row},  # the others were judged at another decision
    }
