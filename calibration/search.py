"""Which groups of layers must not be in 8 bits: ranked by what each does alone, then bisected."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from trtdet.errors import PrecisionError


@dataclass(frozen=True)
class Search:
    """What a search found."""

    kept: tuple[str, ...]  # groups to keep in floating point, most harmful first
    ranking: tuple[tuple[str, float], ...]  # every group with its sensitivity, highest first


def search_groups(
    groups: Sequence[str],
    sensitivity: Callable[[str], float],
    failures: Callable[[Collection[str]], list[str]],
    *,
    minutes: float,
    on_line: Callable[[str], None],
) -> Search:
    """The fewest groups, of the most harmful, that must stay in floating point to pass.

    `sensitivity(group)` is the error when that group alone is in 8 bits; `failures(kept)` judges a
    network whose groups are in 8 bits but for `kept`, and is known to fail with none. That
    more kept groups do no harm is assumed, as bisection must. Raises PrecisionError, with the
    ranking so far, where the time is over first, or where nothing is left in 8 bits.
    """
    end = time.monotonic() + 60.0 * minutes
    measured: dict[str, float] = {}
    for group in groups:
        if time.monotonic() > end:
            raise PrecisionError(
                f"the time for the search is over ({minutes:g} minutes), with {len(measured)} of "
                f"{len(groups)} groups measured: give more --search-minutes.\n{_table(measured)}"
            )
        error = sensitivity(group)
        measured[group] = error if math.isfinite(error) else math.inf
        on_line(f"{group}: {error:.4f} deviations when it alone is in 8 bits")
    ranking = sorted(measured.items(), key=lambda each: -each[1])
    too_few, enough = 0, len(ranking)  # all kept: there is no 8-bit network
    while enough - too_few > 1:
        if time.monotonic() > end and enough < len(ranking):
            break  # not the fewest, but enough
        if time.monotonic() > end:
            raise PrecisionError(
                f"the time for the search is over ({minutes:g} minutes) before a choice passed: "
                f"give more --search-minutes.\n{_table(measured)}"
            )
        count = (too_few + enough) // 2
        reasons = failures([group for group, _ in ranking[:count]])
        on_line(f"with {count} in float16: {'; '.join(reasons) or 'passes'}")
        if reasons:
            too_few = count
        else:
            enough = count
    if enough == len(ranking):
        raise PrecisionError(
            "no choice of groups passes the limits in 8 bits: build --fp16, or raise the limits.\n"
            + _table(measured)
        )
    return Search(tuple(group for group, _ in ranking[:enough]), tuple(ranking))


def _table(measured: dict[str, float]) -> str:
    """The ranking, most harmful first."""
    ranked = sorted(measured.items(), key=lambda each: -each[1])
    width = max(map(len, measured), default=0)
    return "\n".join(f"  {group:{width}}  {error:.4f}" for group, error in ranked)
