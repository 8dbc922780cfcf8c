"""Threads that run a session's slots on a GPU, each with a stream and memory of its own.

A slot that was started waits in one queue; whichever thread is free takes it, enqueues its batch
and sleeps until the GPU is done with that batch alone. Nothing ever waits for the whole device.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import SimpleQueue

from trtdet.engine.cuda import Gpu

Run = Callable[[int], None]  # one slot, from its start to its end


class Workers:
    """`open_stream` is called in each thread, with the device current, and gives what runs a slot.

    What it opens goes onto the stack that it is given, and ends in that thread. `on_ended` hears
    each slot. Raises what `open_stream` raised.
    """

    def __init__(
        self,
        gpu: Gpu,
        streams: int,
        open_stream: Callable[[ExitStack], Run],
        on_ended: Callable[[int], None],
    ):
        self._gpu, self._open, self._on_ended = gpu, open_stream, on_ended
        self._started: SimpleQueue[int | None] = SimpleQueue()
        self._broken: BaseException | None = None
        self._threads: list[threading.Thread] = []
        try:
            for number in range(streams):
                self._start_thread(number)
        except BaseException:
            self.close()
            raise

    def start(self, slot: int) -> None:
        """Run a slot as soon as a stream is free."""
        self._started.put(slot)

    def check(self) -> None:
        """Raise what ended a thread, BackendError most often: its slot will never end."""
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """Wait for what was started, and end the threads."""
        for _ in self._threads:
            self._started.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_thread(self, number: int) -> None:
        """One at a time: TensorRT makes its contexts of one engine one after the other."""
        opened: SimpleQueue[BaseException | None] = SimpleQueue()
        thread = threading.Thread(
            target=self._work, args=(opened,), name=f"stream {number}", daemon=True
        )
        thread.start()
        self._threads.append(thread)
        if (error := opened.get()) is not None:
            raise error

    def _work(self, opened: SimpleQueue[BaseException | None]) -> None:
        with self._gpu.current():
            try:
                self._serve(opened)
            except BaseException as error:  # the caller's thread raises it
                reason = self._gpu.reason(error)
                # Its frames hold the stream and the context, which must go while the device is
                # current, and not when the collector comes by.
                traceback.clear_frames(error.__traceback__)
                if reason is not error:
                    reason.__cause__ = error.with_traceback(None)
                self._broken = self._broken or reason.with_traceback(None)
                opened.put(reason)  # nobody listens any more once the stream was open

    def _serve(self, opened: SimpleQueue[BaseException | None]) -> None:
        """What a stream holds is let go of here, while its device is still current."""
        with ExitStack() as stack:
            run = self._open(stack)
            opened.put(None)
            while (slot := self._started.get()) is not None:
                run(slot)
                self._on_ended(slot)


def ending(action: Callable[[], None]) -> Callable[[], None]:
    """`action` for the end of a stack: a device that was lost does not hide why it was."""

    def end() -> None:
        with suppress(Exception):
            action()

    return end
