"""Where the decision lies: a shift or a Platt scaling of the logit, fitted on labelled images.

A detector's logits order images well long before 0 lies between the classes. What is fitted here
only moves and stretches them: no order changes. What it reaches is measured on images that each fit
had not seen, by cross-validation in whose folds all files of one picture stay together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.metrics import Labels, Scores, balanced_accuracy, roc_auc
from trtdet.engine.decision import AS_IT_IS, Decision
from trtdet.errors import InputError

Method = Literal["shift", "platt"]

FOLDS = 5

# Of each class: images, and pictures, so that no fold is without one.
FEWEST = 10

_STEPS = 100  # of Newton's method, which needs a dozen
_CONVERGED = 1e-10


@dataclass(frozen=True)
class Fit:
    """A decision, and what it reaches on images that it was not fitted on."""

    method: Method
    decision: Decision
    images: int
    auc: float
    balanced_accuracy: tuple[float, float]  # with the present decision, and with this
    cross_entropy: tuple[float, float]  # nats per image, alike

    def record(
        self, labels_sha256: str, replaced: Decision, before: dict[str, Any]
    ) -> dict[str, Any]:
        """For the bundle: what was fitted on what, and what it replaces; with its own hash.

        `before` is the record of the decision that is replaced, empty where that was not fitted.
        """
        record: dict[str, Any] = {
            "method": self.method,
            "labels_sha256": labels_sha256,
            "images": self.images,
            "folds": FOLDS,
            "auc": self.auc,
            "balanced_accuracy": list(self.balanced_accuracy),
            "cross_entropy": list(self.cross_entropy),
            "decision": asdict(self.decision),
            "replaced": asdict(replaced),
            "before": before,
        }
        return {**record, "sha256": record_sha256(record)}


def record_sha256(record: dict[str, Any]) -> str:
    """The hash of a decision's record, without the hash that it holds."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fit_decision(
    logits: Scores,
    labels: Labels,
    pictures: Sequence[str],
    method: Method,
    *,
    present: Decision = AS_IT_IS,
    seed: int = 0,
) -> Fit:
    """Fit a decision to raw logits [N] with labels [N]; `pictures` [N] names what stays together.

    `present` is the decision that the new one is compared with.

    Raises InputError for fewer than ten pictures of a class, and where larger logits do not mean
    synthetic.
    """
    counts = np.bincount(labels, minlength=2)
    named = list(zip(labels.tolist(), pictures, strict=True))
    apart = [len({picture for label, picture in named if label == each}) for each in (0, 1)]
    if min(apart) < FEWEST:
        raise InputError(
            f"{counts[0]} real and {counts[1]} synthetic images of {apart[0]} and {apart[1]} "
            f"pictures are too few: give {FEWEST} pictures or more of each class"
        )
    fit = {"shift": _shift, "platt": _platt}[method]
    auc = roc_auc(labels, logits)
    if auc <= 0.5:
        raise InputError(
            f"on these images larger logits do not mean synthetic (AUC {auc:.3f}): no decision "
            "makes this detector work there. Are the labels 0 for real and 1 for synthetic?"
        )
    now = present.scale * logits + present.shift
    held_out = _cross_validated(fit, logits, labels, pictures, seed)
    return Fit(
        method,
        fit(logits, labels),
        len(labels),
        auc,
        (balanced_accuracy(labels, now), balanced_accuracy(labels, held_out)),
        (_cross_entropy(labels, now), _cross_entropy(labels, held_out)),
    )


def _cross_validated(
    fit: Callable[[Scores, Labels], Decision],
    logits: Scores,
    labels: Labels,
    pictures: Sequence[str],
    seed: int,
) -> Scores:
    """Each logit with the decision that was fitted on the other folds."""
    fold = _folds(labels, pictures, seed)
    decided = np.empty_like(logits)
    for number in range(FOLDS):
        inside = fold == number
        decision = fit(logits[~inside], labels[~inside])
        decided[inside] = decision.scale * logits[inside] + decision.shift
    return decided


def _folds(labels: Labels, pictures: Sequence[str], seed: int) -> NDArray[np.int64]:
    """A fold for each image: of each class as many everywhere, of a picture all in one."""
    names, group = np.unique(np.asarray(pictures), return_inverse=True)
    label_of = np.zeros(len(names), np.int64)
    label_of[group] = labels
    fold_of = np.empty(len(names), np.int64)
    rng = np.random.default_rng(seed)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(label_of == label))
        fold_of[members] = np.arange(len(members)) % FOLDS
    return fold_of[group]


def _shift(logits: Scores, labels: Labels) -> Decision:
    """The threshold of the best balanced accuracy, in the middle of the gap that it lies in."""
    order = np.argsort(logits, kind="stable")
    ordered, synthetic = logits[order], labels[order] == 1
    below = np.concatenate([[0], np.cumsum(~synthetic)]) / (~synthetic).sum()  # real, called real
    missed = np.concatenate([[0], np.cumsum(synthetic)]) / synthetic.sum()
    gap = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # no cut between equals
    accuracy = np.where(gap, below - missed, -np.inf)
    edges = np.concatenate([[ordered[0] - 1.0], ordered, [ordered[-1] + 1.0]])
    best = np.flatnonzero(accuracy == accuracy.max())
    cut = int(best[len(best) // 2])
    return Decision(1.0, -float((edges[cut] + edges[cut + 1]) / 2.0))


def _platt(logits: Scores, labels: Labels) -> Decision:
    """Logistic regression with Platt's targets, by Newton's method with a line search.

    Source: Lin, Lin and Weng, "A note on Platt's probabilistic outputs for support vector
    machines", Machine Learning 68, 2007. The classes count alike, however many images each has.
    """
    count = np.bincount(labels, minlength=2)
    high, low = (count[1] + 1.0) / (count[1] + 2.0), 1.0 / (count[0] + 2.0)
    target = np.where(labels == 1, high, low)
    weight = np.where(labels == 1, 0.5 / count[1], 0.5 / count[0])
    middle, spread = float(logits.mean()), float(logits.std()) or 1.0
    x = (logits - middle) / spread

    def loss(a: float, b: float) -> float:
        z = a * x + b
        return float(weight @ (np.logaddexp(0.0, z) - target * z))

    a, b, value = 1.0, 0.0, loss(1.0, 0.0)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(a * x + b, -500, 500)))
        error, curve = weight * (p - target), weight * p * (1.0 - p)
        gradient = np.array([error @ x, error.sum()])
        hessian = np.array([[curve @ x**2, curve @ x], [curve @ x, curve.sum()]])
        direction = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        if np.abs(gradient).max() < _CONVERGED:
            break
        size = 1.0
        while size > _CONVERGED and loss(a - size * direction[0], b - size * direction[1]) > value:
            size /= 2.0
        a, b = a - size * float(direction[0]), b - size * float(direction[1])
        value = loss(a, b)
    if a <= 0.0:
        raise InputError(
            "logistic regression finds no slope above 0 here, for all that the logits order the "
            "images: a few lie far on the wrong side. Take --method shift"
        )
    return Decision(a / spread, b - a * middle / spread)


def _cross_entropy(labels: Labels, logits: Scores) -> float:
    """Nats per image, classes counting alike."""
    each = np.logaddexp(0.0, np.where(labels == 1, -logits, logits))
    return float((each[labels == 1].mean() + each[labels == 0].mean()) / 2.0)
