"""Histograms of magnitudes: the order of images does not matter, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtdet.calibration.histograms import BINS, Activations, Histogram


def drawn(seed: int, scale: float) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(5000) * scale).astype(np.float32)


def filled(*tensors: np.ndarray) -> Histogram:
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(tensor)
    return histogram


def test_a_histogram_is_numpy_s():
    tensor = drawn(0, 3.0)
    got = filled(tensor)
    edges = np.linspace(0, got.limit, BINS + 1)
    expected, _ = np.histogram(np.abs(tensor).astype(np.float64), edges)
    assert np.abs(np.cumsum(got.counts - expected)).max() <= 2  # a value on an edge, in float32
    assert got.counts.sum() == tensor.size
    assert got.largest == np.abs(tensor).max()
    assert got.limit / 2 < got.largest <= got.limit
    assert np.log2(got.limit) == int(np.log2(got.limit))


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=5), st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_tensors_does_not_matter(scales, random):
    tensors = [drawn(index, scale) for index, scale in enumerate(scales)]
    first = filled(*tensors)
    random.shuffle(tensors)
    second = filled(*tensors)
    assert (first.limit, first.largest) == (second.limit, second.largest)
    # Bins merge in pairs, so a value that lies on an edge in float32 may lie on either side.
    assert np.abs(np.cumsum(first.counts - second.counts)).max() <= len(scales)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_tensor(bad):
    with pytest.raises(ValueError, match="conv1: a value is infinite or no number"):
        Activations().add({"conv1": np.array([1, bad], np.float32)}, {})


def test_activations_survive_a_file(tmp_path):
    seen = Activations()
    seen.add({"a": drawn(0, 1.0), "b": drawn(1, 100.0)}, {"c": 3.0})
    seen.add({"a": drawn(2, 5.0), "b": drawn(3, 0.1)}, {"c": 2.0})
    np.savez(tmp_path / "seen.npz", **seen.to_arrays())
    with np.load(tmp_path / "seen.npz", allow_pickle=False) as arrays:
        again = Activations.from_arrays(arrays)
    assert again.images == 2
    assert again.largest == {"c": 3.0}
    for name, histogram in seen.histograms.items():
        assert again.histograms[name].counts.tobytes() == histogram.counts.tobytes()
        assert (again.histograms[name].limit, again.histograms[name].largest) == (
            histogram.limit,
            histogram.largest,
        )
