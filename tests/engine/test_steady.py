"""A rate does not depend on how streams lie to each other, nor on the clock's beginning."""

from __future__ import annotations

import pytest

from trtdet.engine.steady import SteadyRate


@pytest.mark.parametrize("start", [0.0, 1e9])
@pytest.mark.parametrize("streams", [1, 2, 3, 16])
@pytest.mark.parametrize("apart", [0.0, 0.001, 1.0])
def test_every_stream_counts_once(streams, apart, start):
    # Each ends a batch of 4 every second, a part of a second after the one before it.
    rate, done = SteadyRate(), 0
    for step in range(4):
        for stream in range(streams):
            done += 4
            rate.add(start + step + apart * stream / streams, done)
    assert rate.per_s == pytest.approx(4 * streams, rel=1e-3)


def test_a_rate_needs_two_times():
    rate = SteadyRate()
    assert rate.per_s is None
    for done in (1, 2):
        rate.add(5.0, done)
        assert rate.per_s is None
    rate.add(6.0, 3)
    assert rate.per_s is not None
