"""Ctrl-C, and a scheduler's SIGTERM, as a wish: what runs is finished, and nothing new is begun."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Whether the block should come to its end; `on_stop` is called at the first signal.

    A second one raises KeyboardInterrupt where it is. Outside the main thread nothing changes.
    """
    wanted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wanted.is_set
        return

    def stop(number: int, frame: object) -> None:
        if wanted.is_set():
            raise KeyboardInterrupt
        wanted.set()
        on_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wanted.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
