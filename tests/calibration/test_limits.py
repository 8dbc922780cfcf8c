"""The four ways to choose a range."""

from __future__ import annotations

import numpy as np
import pytest

from trtdet.calibration.histograms import Histogram
from trtdet.calibration.limits import METHODS, choose_limit
from trtdet.calibration.quantize import LEVELS


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


NORMAL = np.random.default_rng(0).standard_normal(200_000)
WITH_OUTLIER = np.append(NORMAL, 60.0)


def test_max_clips_nothing():
    assert choose_limit(histogram_of(WITH_OUTLIER), "max") == 60.0


def test_percentile_keeps_all_but_one_in_ten_thousand():
    exact = np.quantile(np.abs(WITH_OUTLIER), 0.9999)
    assert choose_limit(histogram_of(WITH_OUTLIER), "percentile") == pytest.approx(exact, abs=0.07)


def squared_error(values: np.ndarray, limit: float) -> float:
    levels = np.clip(np.rint(values / limit * LEVELS), -LEVELS, LEVELS)
    return float(np.mean((levels * limit / LEVELS - values) ** 2))


@pytest.mark.parametrize(
    "values",
    [NORMAL, WITH_OUTLIER, np.maximum(NORMAL, 0), np.random.default_rng(1).laplace(size=100_000)],
    ids=["normal", "outlier", "relu", "laplace"],
)
def test_mse_is_near_the_best_limit_there_is(values):
    chosen = choose_limit(histogram_of(values), "mse")
    best = min(
        squared_error(values, limit) for limit in np.linspace(0.5, np.abs(values).max(), 200)
    )
    assert squared_error(values, chosen) <= 1.1 * best


@pytest.mark.parametrize(("method", "most"), [("percentile", 5), ("mse", 40), ("entropy", 10)])
def test_an_outlier_does_not_take_the_levels_of_all_others(method, most):
    assert choose_limit(histogram_of(WITH_OUTLIER), method) < most


@pytest.mark.parametrize("method", METHODS)
def test_limits_are_those_of_the_values(method):
    assert choose_limit(histogram_of(np.zeros(100)), method) == 0.0
    uniform = np.random.default_rng(2).uniform(-1, 1, 100_000)
    assert choose_limit(histogram_of(uniform), method) == pytest.approx(1.0, abs=0.03)
    assert choose_limit(histogram_of(np.full(50, 0.37)), method) <= 0.37 * (1 + 1e-6)


def test_entropy_is_no_copy_of_max():
    """ONNX Runtime's is: it tries one threshold only."""
    values = np.random.default_rng(3).laplace(size=100_000)
    histogram = histogram_of(values)
    assert choose_limit(histogram, "entropy") < 0.9 * choose_limit(histogram, "max")
