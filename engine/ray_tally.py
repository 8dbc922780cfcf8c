"""How far a Ray job is: the actors that score count their rows in one place, for the bar.

Rows that are scored again, because a worker died, count again: the bar may be ahead, the summary is
counted in the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

PROGRESS_EVERY_S = 0.5

OnRows = Callable[[int, int], None]  # rows that were scored since, failures of the run until then


class Tally:
    """An actor: how many rows were scored so far, for the progress bar."""

    def __init__(self) -> None:
        self._rows = self._failures = 0

    def add(self, rows: int, failures: int) -> None:
        """So many more."""
        self._rows += rows
        self._failures += failures

    def total(self) -> tuple[int, int]:
        """Rows, and failures among them."""
        return self._rows, self._failures


@contextmanager
def tallied(ray: Any, on_rows: OnRows | None) -> Iterator[Any]:
    """An actor that counts, and a thread that tells `on_rows` of it."""
    tally = ray.remote(Tally).options(num_cpus=0).remote()
    if on_rows is None:
        yield tally
        return
    ended, told = Event(), 0

    def tell() -> None:
        nonlocal told
        with suppress(ray.exceptions.RayError):  # the pipeline fails, too, and says why
            rows, failures = ray.get(tally.total.remote())
            on_rows(rows - told, failures)
            told = rows

    def watch() -> None:
        while not ended.wait(PROGRESS_EVERY_S):
            tell()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        ended.set()
        thread.join()
    tell()
