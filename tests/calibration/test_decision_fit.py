"""Fitted decisions: against brute force, against the gradient, and against flattering oneself."""

from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.decision import fit_decision, record_sha256
from trtdet.calibration.metrics import balanced_accuracy
from trtdet.engine.decision import Decision
from trtdet.errors import InputError

RNG = np.random.default_rng(0)


def logits_of(real: int, synthetic: int, shift: float = 0.0, spread: float = 1.0):
    """Normal logits of two classes, their decision at `shift`."""
    logits = np.concatenate([RNG.normal(-1, 1, real), RNG.normal(1, 1, synthetic)])
    labels = np.repeat([0, 1], [real, synthetic])
    return spread * logits + shift, labels.astype(np.int64)


def alone(labels) -> list[str]:
    return [str(index) for index in range(len(labels))]


def test_a_shift_is_the_best_threshold_there_is():
    logits, labels = logits_of(120, 60, shift=-7.0)
    fit = fit_decision(logits, labels, alone(labels), "shift")
    assert fit.decision.scale == 1.0
    reached = balanced_accuracy(labels, logits + fit.decision.shift)
    assert reached == max(balanced_accuracy(labels, logits - cut) for cut in logits)
    assert fit.decision.shift == pytest.approx(7.0, abs=0.6)
    assert fit.balanced_accuracy[0] == 0.5
    assert 0.7 < fit.balanced_accuracy[1] <= reached + 0.02


def test_platt_gives_the_probabilities_of_the_classes():
    """Of two normals a deviation apart the true log-odds are 2 x."""
    logits, labels = logits_of(20_000, 10_000, shift=3.0, spread=10.0)
    fit = fit_decision(logits, labels, alone(labels), "platt")
    assert fit.decision.scale == pytest.approx(0.2, rel=0.05)
    assert fit.decision.shift == pytest.approx(-0.6, abs=0.06)
    assert fit.cross_entropy[1] < fit.cross_entropy[0]


def test_platt_is_where_the_loss_is_least():
    logits, labels = logits_of(40, 25, shift=2.0, spread=3.0)
    decision = fit_decision(logits, labels, alone(labels), "platt").decision
    target = np.where(labels == 1, 26 / 27, 1 / 42)
    weight = np.where(labels == 1, 0.5 / 25, 0.5 / 40)

    def loss(scale: float, shift: float) -> float:
        z = scale * logits + shift
        return float(weight @ (np.logaddexp(0, z) - target * z))

    least = loss(decision.scale, decision.shift)
    for scale, shift in ((1.001, 0), (0.999, 0), (1, 1e-3), (1, -1e-3)):
        assert loss(decision.scale * scale, decision.shift + shift) > least


@pytest.mark.parametrize("method", ["shift", "platt"])
def test_classes_that_do_not_overlap_are_no_trouble(method):
    logits = np.concatenate([np.linspace(-900, -400, 50), np.linspace(-300, 100, 50)])
    labels = np.repeat([0, 1], 50)
    fit = fit_decision(logits, labels, alone(labels), method)
    assert balanced_accuracy(labels, fit.decision.scale * logits + fit.decision.shift) == 1.0
    assert -400 < -fit.decision.shift / fit.decision.scale < -300


def test_chance_is_not_sold_as_skill():
    """Logits that say nothing: in-sample a threshold always looks better than it is."""
    rng = np.random.default_rng(7)
    held_out, inside = [], []
    for _ in range(60):
        labels = np.repeat([0, 1], 15)
        logits = rng.normal(0, 1, 30)
        try:
            fit = fit_decision(logits, labels, alone(labels), "shift")
        except InputError:  # an AUC below a half
            continue
        held_out.append(fit.balanced_accuracy[1])
        inside.append(balanced_accuracy(labels, logits + fit.decision.shift))
    assert np.mean(inside) > np.mean(held_out) + 0.05


def test_files_of_one_picture_never_help_each_other():
    """Twenty pictures with a logit of their own each, in ten files: only leaks know the label."""
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.permutation(np.repeat([0, 1], 10)), 10)
    pictures = [str(index // 10) for index in range(200)]
    logits = np.repeat(rng.normal(0, 1, 20), 10) + 0.2 * labels
    together = fit_decision(logits, labels, pictures, "shift").balanced_accuracy[1]
    apart = fit_decision(logits, labels, alone(labels), "shift").balanced_accuracy[1]
    assert together < apart


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (
            np.arange(40.0),
            np.repeat([0, 1], [35, 5]),
            "of 35 and 5 pictures are too few",
        ),
        (-np.arange(40.0), np.repeat([0, 1], 20), r"AUC 0\.000\).* labels 0 for real"),
    ],
)
def test_what_cannot_be_fitted_is_told(logits, labels, message):
    with pytest.raises(InputError, match=message):
        fit_decision(logits, labels, alone(labels), "shift")


def test_a_record_is_hashed():
    logits, labels = logits_of(20, 20)
    record = fit_decision(logits, labels, alone(labels), "platt").record("ab", Decision(), {})
    assert record["sha256"] == record_sha256(record)
    assert record_sha256({**record, "images": 41}) != record["sha256"]
    assert record["replaced"] == {"scale": 1.0, "shift": 0.0}


def test_ten_files_of_one_picture_are_one_picture():
    logits, labels = logits_of(20, 20)
    pictures = [*alone(labels[:20]), *["one"] * 20]
    with pytest.raises(InputError, match="of 20 and 1 pictures are too few"):
        fit_decision(logits, labels, pictures, "platt")


def test_what_is_compared_with_is_the_present_decision():
    logits, labels = logits_of(60, 60, shift=-9.0)
    present = Decision(1.0, 9.0)
    fit = fit_decision(logits, labels, alone(labels), "shift", present=present)
    assert fit.balanced_accuracy[0] == balanced_accuracy(labels, logits + 9.0)
