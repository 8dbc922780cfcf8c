"""From raw logits to the written one: whatever rounding does, the side of 0 is the right one."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtdet.engine.decision import AS_IT_IS, Decision, Vote

LOGITS = st.one_of(
    st.floats(-20, 20, width=32),
    st.floats(-1e4, 1e4, width=32),
    st.sampled_from([0.0, -0.0, 80.0, -80.0, 1e4, -1e4, 17.0, -17.0, 1e-30, -1e-30]),
)
THRESHOLDS = st.one_of(st.floats(0.001, 0.999), st.sampled_from([0.5, 0.487, 0.25, 1e-9]))


@st.composite
def votes(draw) -> tuple[list[float], tuple[float, ...], float]:
    """Members' logits, their weights, and a threshold."""
    count = draw(st.integers(1, 7))
    logits = draw(st.lists(LOGITS, min_size=count, max_size=count))
    alike = draw(st.booleans())
    weight = st.just(1.0) if alike else st.floats(0.01, 100)
    weights = draw(st.lists(weight, min_size=count, max_size=count))
    return logits, tuple(weights), draw(THRESHOLDS)


def float32(logits: list[float]) -> list[np.ndarray]:
    return [np.array([logit], np.float32) for logit in logits]


def combined(combine: str, logits: list[float], weights=None, threshold: float = 0.5) -> float:
    weights = weights or (1.0,) * len(logits)
    (logit,) = Vote(combine, weights, threshold).apply(float32(logits))
    assert logit.dtype == np.float32
    return float(logit)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def exact_sigmoid(x: float) -> Decimal:
    return 1 / (1 + (-Decimal(float(np.float32(x)))).exp())


class TestMeanProbability:
    @given(votes())
    @settings(max_examples=500, deadline=None)
    def test_above_0_exactly_where_the_mean_is_above_the_threshold(self, vote):
        logits, weights, threshold = vote
        with localcontext() as context:
            context.prec = 60
            parts = [Decimal(w) * exact_sigmoid(x) for w, x in zip(weights, logits, strict=True)]
            mean = sum(parts) / sum(map(Decimal, weights))
            apart = mean - Decimal(threshold)
        if abs(apart) < 1e-15:  # closer than the float64 mean can tell: `test_ties` is about these
            return
        logit = combined("mean-probability", logits, weights, threshold)
        assert (logit > 0) == (apart > 0)

    @given(votes())
    @settings(max_examples=500, deadline=None)
    def test_is_the_logit_of_the_mean_less_that_of_the_threshold(self, vote):
        logits, weights, threshold = vote
        with localcontext() as context:
            context.prec = 60
            synthetic = [exact_sigmoid(logit) for logit in logits]
            total = sum(map(Decimal, weights))
            mean = sum(Decimal(w) * p for w, p in zip(weights, synthetic, strict=True)) / total
            real = sum(Decimal(w) * (1 - p) for w, p in zip(weights, synthetic, strict=True))
            real /= total
            if min(mean, real) < Decimal(10) ** -50:  # then no digit of 60 says what it is
                return
            bar = Decimal(threshold)
            expected = float((mean / real).ln() - (bar / (1 - bar)).ln())
        got = combined("mean-probability", logits, weights, threshold)
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-8)

    @pytest.mark.parametrize(
        ("logits", "threshold", "above"),
        [
            ([0.0], 0.5, False),  # the mean is the threshold: not above it
            ([0.0, 0.0, 0.0], 0.5, False),
            ([80.0, -80.0], 0.5, False),
            ([1e4, -1e4], 0.5, False),
            ([1e4, 1e4, -1e4, -1e4], 0.5, False),
            ([1e4, 1e4, -1e4], 0.5, True),
            ([1e4, -1e4], 0.487, True),  # Megatron's threshold
            ([1e4, -1e4], 0.513, False),
            ([1e-30], 0.5, False),  # its float64 sigmoid is 0.5
            ([80.0, 80.0], 0.5, True),
            ([-80.0, -80.0], 0.5, False),
            ([-1e4], 1e-300, False),
            ([1e4], 1 - 1e-16, True),
        ],
    )
    def test_ties_and_saturation(self, logits, threshold, above):
        logit = combined("mean-probability", logits, None, threshold)
        assert np.isfinite(logit)
        assert (np.mean([sigmoid(x) for x in logits]) > threshold) == above  # as the table says
        assert (logit > 0) == above

    @given(st.lists(st.integers(0, 400), min_size=2, max_size=8), st.integers(1, 399))
    @settings(max_examples=300, deadline=None)
    def test_at_a_tie_the_float64_mean_decides(self, quarters, bar):
        """Probabilities that are all but the threshold, where sums round this way or that."""
        logits = np.array([(q - 200) / 16 for q in quarters], np.float32)
        weights = np.full(len(logits), 1 / len(logits))
        x = logits.astype(np.float64)
        small = np.exp(-np.abs(x))
        mean = float((weights * (np.where(x >= 0, 1.0, small) / (1.0 + small))).sum())
        for threshold in (mean, np.nextafter(mean, 0), np.nextafter(mean, 1), bar / 400):
            if 0 < threshold < 1:
                logit = combined("mean-probability", list(logits), None, float(threshold))
                assert (logit > 0) == (mean > threshold)

    @given(votes(), st.floats(0, 100, width=32), st.integers(0, 6))
    @settings(max_examples=300, deadline=None)
    def test_never_falls_when_a_member_rises(self, vote, rise, which):
        logits, weights, threshold = vote
        higher = list(logits)
        higher[which % len(logits)] = float(np.float32(higher[which % len(logits)] + rise))
        before = combined("mean-probability", logits, weights, threshold)
        after = combined("mean-probability", higher, weights, threshold)
        # Float64 sums of the same numbers, but for one: their logit may lose a last bit.
        assert after >= before - 1e-6 * (1 + abs(before))


class TestMeanLogit:
    @given(votes())
    @settings(max_examples=300, deadline=None)
    def test_is_the_weighted_mean_less_the_thresholds_logit(self, vote):
        logits, weights, threshold = vote
        given_logits = [float(np.float32(logit)) for logit in logits]
        mean = math.fsum(w * x for w, x in zip(weights, given_logits, strict=True)) / sum(weights)
        expected = mean - math.log(threshold / (1 - threshold))
        scale = max(map(abs, given_logits)) + abs(expected)
        got = combined("mean-logit", logits, weights, threshold)
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-12 * scale + 1e-12)

    def test_sides(self):
        assert combined("mean-logit", [3.0, -3.0]) == 0.0
        assert combined("mean-logit", [3.0, -2.0]) == 0.5
        assert combined("mean-logit", [3.0, -2.0], (1.0, 4.0)) == -1.0
        assert combined("mean-logit", [0.0], None, 0.487) > 0
        assert combined("mean-logit", [1e-44], None, 0.5) > 0
        assert combined("mean-logit", [1e38, 3e38]) == pytest.approx(2e38)


@pytest.mark.parametrize("combine", ["mean-logit", "mean-probability"])
class TestEveryVote:
    def test_nan_stays_and_costs_no_other_image(self, combine):
        members = [
            np.array([1, np.nan, 2, np.inf, 1], np.float32),
            np.array([1, 1, np.nan, 1, -np.inf], np.float32),
        ]
        logits = Vote(combine, (1.0, 1.0)).apply(members)
        assert np.isnan(logits).tolist() == [False, True, True, True, True]
        assert logits[0] == pytest.approx(1)

    def test_weights_need_not_sum_to_1(self, combine):
        logits = [1.5, -0.25, 0.5]
        assert combined(combine, logits, (2.0, 4.0, 6.0)) == pytest.approx(
            combined(combine, logits, (1.0, 2.0, 3.0)), rel=1e-6
        )

    def test_one_member_keeps_its_logit(self, combine):
        for logit in (0.0, 1.25, -3.5, 30.0, -80.0):
            assert combined(combine, [logit]) == pytest.approx(logit, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("median", (1.0,)), "neither mean-logit nor mean-probability"),
        (("mean-logit", (1.0, 0.0)), "numbers above 0"),
        (("mean-logit", (1.0, float("nan"))), "numbers above 0"),
        (("mean-logit", (1.0, float("inf"))), "numbers above 0"),
        (("mean-logit", (1.0,), 0.0), "between 0 and 1"),
        (("mean-logit", (1.0,), 1.0), "between 0 and 1"),
        (("mean-logit", (1.0,), float("nan")), "between 0 and 1"),
    ],
)
def test_a_vote_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vote(*arguments)


class TestDecision:
    @given(LOGITS, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
    @settings(max_examples=300, deadline=None)
    def test_is_platts_line_rounded_once(self, logit, scale, shift):
        given_logit = np.float32(logit)
        exact = scale * float(given_logit) + shift
        got = Decision(scale, shift).apply(np.array([[given_logit]], np.float32))
        assert got.shape == (1, 1)
        assert got.dtype == np.float32
        assert (got[0, 0] > 0, got[0, 0] < 0) == (exact > 0, exact < 0)
        assert got[0, 0] == pytest.approx(exact, rel=1e-7, abs=1e-44)

    def test_as_it_is_changes_no_bit(self):
        logits = np.array([1.1, -0.0, np.nan, np.inf, 1e-45], np.float32)
        assert AS_IT_IS.apply(logits).tobytes() == logits.tobytes()

    def test_no_finite_logit_becomes_infinite_and_no_other_finite(self):
        logits = np.array([3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
        scaled = Decision(1000.0, 0.0).apply(logits)
        limit = np.finfo(np.float32).max
        assert scaled[:4].tolist() == [limit, -limit, np.inf, -np.inf]
        assert np.isnan(scaled[4])

    @pytest.mark.parametrize(
        ("scale", "shift"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))]
    )
    def test_a_decision_that_cannot_be(self, scale, shift):
        with pytest.raises(ValueError, match="a scale above 0 and a finite shift"):
            Decision(scale, shift)
