"""How long work in a queue takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

_ROUNDS, _ROUND_S, _MOST_RUNS = 3, 0.2, 2000


def seconds_of(
    once: Callable[[], object], wait: Callable[[], object], longer: float = 1.0
) -> float:
    """Seconds of one of many runs in a queue; the median of several such queues.

    `longer` times as long as usual, for what heats the GPU and changes its clocks.

    The clock is the host's: a queue is long enough for the GPU to be the slower of the two, or the
    launches are what costs, as they would in earnest.
    """
    once()
    wait()
    started = time.perf_counter()
    once()
    wait()
    guess = max(time.perf_counter() - started, 1e-6)
    runs = max(1, min(_MOST_RUNS, int(longer * _ROUND_S / guess)))
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(runs):
            once()
        wait()
        rounds.append((time.perf_counter() - started) / runs)
    return median(rounds)
