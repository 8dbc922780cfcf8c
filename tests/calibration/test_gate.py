"""The gate's figures, against numbers worked out apart, and the limits that they meet or not."""

from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.gate import Limits, compare

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(0, 2, 400).astype(np.float32)
LABELS = (REFERENCE + RNG.normal(0, 2, 400) > 0).astype(np.int64)


def test_the_same_logits_are_no_distance_apart():
    same = compare(REFERENCE, REFERENCE, LABELS)
    assert (same.largest, same.p99.value, same.flips.value, same.auc_drop.value) == (0, 0, 0, 0)
    assert same.rank_correlation == pytest.approx(1.0)
    assert same.failures(Limits(0, 0, 0)) == []


def test_distances_are_in_deviations_of_the_reference():
    moved = REFERENCE.copy()
    moved[:3] += 6.0  # fewer than one in a hundred
    got = compare(REFERENCE, moved)
    assert got.deviation == pytest.approx(REFERENCE.std(), rel=1e-6)
    assert got.largest == pytest.approx(6.0, rel=1e-5)
    assert got.mean.value == pytest.approx(0.045 / REFERENCE.std(), rel=1e-5)
    assert got.p99.value == 0.0
    assert got.p99.high == pytest.approx(6.0 / REFERENCE.std(), rel=1e-5)
    assert got.p99.low == 0.0


def test_flips_are_decisions_that_change_sides():
    moved = REFERENCE.copy()
    near = np.argsort(np.abs(REFERENCE))[:8]
    moved[near] = -REFERENCE[near]
    got = compare(REFERENCE, moved)
    assert got.flips.value == 8 / 400
    assert got.flips.low < 0.02 < got.flips.high
    assert got.failures(Limits()) == [f"{got.flips:.1%} of the decisions change (limit 1.0%)"]


def test_the_rank_correlation_is_of_ranks():
    assert compare(REFERENCE, np.exp(REFERENCE)).rank_correlation == pytest.approx(1.0)
    assert compare(REFERENCE, -REFERENCE).rank_correlation == pytest.approx(-1.0)
    assert compare(REFERENCE, np.zeros_like(REFERENCE)).rank_correlation == 0.0


def test_the_auc_drop_is_paired():
    """Noise that two engines share does not widen the interval of their difference."""
    barely = REFERENCE + RNG.normal(0, 1e-3, 400).astype(np.float32)
    got = compare(REFERENCE, barely, LABELS)
    assert abs(got.auc_drop.value) < 1e-3
    assert got.auc_drop.high - got.auc_drop.low < 2e-3
    worse = compare(REFERENCE, RNG.permutation(REFERENCE), LABELS)
    assert worse.auc_drop.value == pytest.approx(worse.auc[0] - worse.auc[1])
    assert any(line.startswith("AUC falls by") for line in worse.failures(Limits(1, 99)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_logit_that_is_no_number_fails_the_gate(bad):
    moved = REFERENCE.copy()
    moved[0] = bad
    got = compare(REFERENCE, moved, LABELS)
    assert np.isinf([got.largest, got.mean.value]).all()
    assert got.failures(Limits(1.0, 99.0, 1.0)) == ["1 logits are no numbers"]


def test_labels_of_one_class_have_no_auc():
    assert compare(REFERENCE, REFERENCE, np.ones(400, np.int64)).auc is None


def test_a_constant_reference_is_no_division_by_zero():
    got = compare(np.ones(300, np.float32), np.full(300, 1.5, np.float32))
    assert (got.deviation, got.p99.value) == (0.0, 0.5)
