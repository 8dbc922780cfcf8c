"""The search for the groups that must not be in 8 bits."""

from __future__ import annotations

import pytest

from trtdet.calibration.search import search_groups
from trtdet.errors import PrecisionError

GROUPS = [f"block {index}" for index in range(20)]
HARM = {group: float(index % 7) for index, group in enumerate(GROUPS)}


def search(harm=HARM, limit=10.0, minutes=10.0, tried=None):
    def failures(kept):
        if tried is not None:
            tried.append(len(kept))
        left = sum(harm[group] for group in GROUPS if group not in kept)
        return [f"{left:g} left"] if left > limit else []

    return search_groups(GROUPS, harm.__getitem__, failures, minutes=minutes, on_line=print)


def test_the_fewest_of_the_most_harmful_are_kept():
    tried: list[int] = []
    found = search(tried=tried)
    assert [harm for _, harm in found.ranking] == sorted(HARM.values(), reverse=True)
    left = [HARM[group] for group in GROUPS if group not in found.kept]
    assert sum(left) <= 10.0 < sum(left) + HARM[found.kept[-1]]
    assert len(tried) <= 5  # a bisection, no walk


def test_where_nothing_passes_the_error_has_the_table():
    with pytest.raises(PrecisionError, match=r"no choice of groups passes[\s\S]*block 6 +6\.0000"):
        search(limit=-1.0)


def test_where_time_is_over_the_error_says_how_to_have_more():
    with pytest.raises(PrecisionError, match=r"0 of 20 groups .* more --search-minutes"):
        search(minutes=0.0)


def test_time_that_ends_in_the_bisection_is_not_told_as_defeat(monkeypatch):
    clock = iter([0.0] + [0.0] * 20 + [1e9] * 5)
    monkeypatch.setattr("trtdet.calibration.search.time.monotonic", lambda: next(clock))
    with pytest.raises(PrecisionError, match=r"is over .* before a choice passed"):
        search()


def test_a_group_whose_error_is_no_number_is_the_most_harmful():
    found = search(harm={**HARM, "block 4": float("nan")}, limit=float("inf"))
    assert found.ranking[0] == ("block 4", float("inf"))
