from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.reliability import calibration_error, probabilities, reliability


def test_bins_and_error_of_a_worked_case():
    """Two images at 0.25, one of them synthetic; three at 0.75, all synthetic."""
    logits = np.log(
        np.array([0.25, 0.25, 0.75, 0.75, 0.75]) / np.array([0.75, 0.75, 0.25, 0.25, 0.25])
    )
    bins = reliability(np.array([0, 1, 1, 1, 1]), logits, bins=4)  # fmt: skip
    assert [each.images for each in bins] == [2, 3]
    assert [each.probability for each in bins] == pytest.approx([0.25, 0.75])
    assert [each.synthetic.value for each in bins] == [0.5, 1.0]
    assert calibration_error(bins) == pytest.approx((2 * 0.25 + 3 * 0.25) / 5)


def test_labels_that_follow_the_probability_have_a_small_error():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 100_000)
    labels = (rng.random(100_000) < probabilities(logits)).astype(int)
    assert calibration_error(reliability(labels, logits)) < 0.01
    assert calibration_error(reliability(labels, 3 * logits)) > 0.05


def test_huge_logits_have_probabilities():
    assert probabilities(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]
    assert sum(each.images for each in reliability(np.array([0, 1]), np.array([-1e6, 1e6]))) == 2
