"""A bundle gets a decision, or the one before it back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from trtdet.calibration.decision import Fit, Method, fit_decision, record_sha256
from trtdet.calibration.judged import judged_again
from trtdet.calibration.labels import read_labels
from trtdet.calibration.scoring import score_images
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import Bundle, open_bundle, replace_record
from trtdet.engine.decision import Decision
from trtdet.engine.digest import sha256_file
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import MEMBERS
from trtdet.engine.store import starter_bundle
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import BundleError, InputError


def fit_bundle(
    folder: Path, labels: Path, method: Method, gpu: GpuOptions | None = None
) -> tuple[Fit, list[str]]:
    """Score the labelled images, fit, and write the bundle's new decision; reasons of bad images.

    `gpu`: how TensorRT scores them, where there is a GPU.

    Raises InputError for a bundle that has no decision of its own, and for too few images.
    """
    bundle = _own(folder)
    if len(bundle.outputs) > 1:
        raise InputError(f"{bundle.name} gives several logits: build each detector by itself")
    listed = read_labels(labels)
    backend, _rejected = choose_backend("auto")
    with open_engine(backend, bundle, raw=True, gpu=gpu) as engine:
        logits, scored, refused = score_images(engine, listed)
    fit = fit_decision(
        logits[:, 0].astype(np.float64) if scored else np.empty(0),
        np.array([each.label for each in scored], np.int64),
        [each.image for each in scored],
        method,
        present=bundle.decision,
    )
    record = fit.record(sha256_file(labels), bundle.decision, bundle.decision_record)
    _place(replace(bundle, decision=fit.decision, decision_record=record))
    return fit, refused


def undo_decision(folder: Path) -> Decision:
    """Give the bundle the decision that the last fit replaced. Raises BundleError if none did."""
    bundle = _own(folder)
    record = bundle.decision_record
    if not record:
        raise BundleError(f"{bundle.name} has no fitted decision to undo")
    if record.get("sha256") != record_sha256(record):
        raise BundleError(f"the decision of {bundle.name} was edited by hand: build it again")
    before = Decision(**record["replaced"])
    _place(replace(bundle, decision=before, decision_record=record["before"]))
    return before


def _place(bundle: Bundle) -> None:
    """Write the record, and with it what fewer bits cost at this decision."""
    replace_record(replace(bundle, precision_report=judged_again(bundle)))


def _own(folder: Path) -> Bundle:
    if folder == starter_bundle():
        raise InputError(
            f"the starter belongs to the package: copy {folder} to a folder of yours first"
        )
    if folder.resolve().parent.name == MEMBERS:
        raise InputError(
            f"{folder} is a member of an ensemble, whose vote was made with it as it is: fit the "
            "bundle that it came from, and make the ensemble again"
        )
    return open_bundle(folder)
