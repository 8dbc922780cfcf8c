"""Threads that read and decode images, each image within its time.

A job has two phases: `decode` reads a file and gives pixels in memory of its own; `place` brings
them, or the reason why there are none, to where they belong. A thread that waits for a dead file
system, or for a decoder written in C, cannot be stopped. So a job that takes too long is abandoned
in its first phase: its thread is replaced, and whatever it comes to is thrown away. The passage to
the second phase is claimed by whoever is first, the thread or the watch.

What replaces a thread decodes in a process, which can be killed: so at most one decoder per thread
of the pool ever runs on for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.decode import Limits, decode_rgb
from trtdet.errors import BackendError, ImageError

Pixels = NDArray[np.uint8]  # [H, W, 3]

Decoded = TypeVar("Decoded")  # what a job comes to: pixels, as a rule

# A file system that does not answer holds a thread per file, which costs little; so many mean that
# it will not answer any more.
MOST_STUCK = 64

_ABANDONED = "abandoned decoder"  # such a thread's name


class Decoder(Protocol):
    """What a thread decodes with. All but `abandon` are called in that thread alone."""

    def ready(self) -> None:
        """Before an image's time begins. Raises BackendError where the decoder cannot be had."""

    def decode(self, data: bytes) -> Pixels:
        """See `trtdet.engine.decode.decode_rgb`."""

    def abandon(self) -> None:
        """From another thread: nobody waits any more."""

    def close(self) -> None:
        """Let go of what it holds."""


class ThreadDecoder:
    """Decodes in the thread itself."""

    def __init__(self, limits: Limits):
        self._max_pixels = limits.max_pixels

    def ready(self) -> None:
        """See `Decoder`."""

    def decode(self, data: bytes) -> Pixels:
        """See `Decoder`."""
        return decode_rgb(data, max_pixels=self._max_pixels)

    def abandon(self) -> None:
        """See `Decoder`."""

    def close(self) -> None:
        """See `Decoder`."""


@dataclass(eq=False)
class _Job:
    decode: Callable[[Decoder], Any]
    place: Callable[[Any], None]  # of what `decode` gave, or of an ImageError
    deadline: float = float("inf")  # once its time has begun
    _claimed: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Whether the caller is the first to ask, and so the one who calls `place`, or drops it."""
        return self._claimed.acquire(blocking=False)


class DecodePool:
    """A context manager. `on_broken` hears, in any thread, what ends the run.

    `open_decoder` gives a thread its decoder, and is told whether the thread replaces another.
    """

    def __init__(
        self,
        threads: int,
        max_seconds: float,
        open_decoder: Callable[[bool], Decoder],
        on_broken: Callable[[BaseException], None],
    ):
        self._max_seconds, self._open, self._on_broken = max_seconds, open_decoder, on_broken
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = threading.Event()
        self._threads: list[_Thread] = []
        self._abandoned: list[_Thread] = []
        for _ in range(threads):
            self._start_thread(replaces=False)
        self._watch = threading.Thread(target=self._keep_watch, name="decode watch", daemon=True)
        self._watch.start()

    def submit(
        self,
        decode: Callable[[Decoder], Decoded],
        place: Callable[[Decoded | ImageError], None],
    ) -> None:
        """A job, begun as soon as a thread is free. `place` is called once, in some thread."""
        self._jobs.put(_Job(decode, place))

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_raised: object) -> None:
        """Wait for what is being placed; abandon what is being decoded, and what was not begun."""
        self._closed.set()
        self._watch.join()
        for _thread in self._threads:
            self._jobs.put(None)
        for each in self._threads:
            if (job := each.job) is not None and job.claim():
                each.abandon()
            else:
                each.join()

    def _start_thread(self, *, replaces: bool) -> None:
        thread = _Thread(self._open(replaces), self._work)
        self._threads.append(thread)
        thread.start()

    def _work(self, thread: _Thread) -> None:
        try:
            with closing(thread.decoder):
                while (job := self._jobs.get()) is not None:
                    thread.job = job
                    if self._closed.is_set() or not self._run(thread, job):
                        return
        except BaseException as broken:
            self._on_broken(broken)

    def _run(self, thread: _Thread, job: _Job) -> bool:
        """Both phases of a job; False where it was abandoned."""
        thread.decoder.ready()
        job.deadline = time.monotonic() + self._max_seconds
        result: Any
        try:
            result = job.decode(thread.decoder)
        except MemoryError:
            result = ImageError("not enough memory to read and decode it")
        except BaseException as error:
            result = error
        if not job.claim():
            return False
        thread.job = None
        if isinstance(result, BaseException) and not isinstance(result, ImageError):
            raise result
        job.place(result)
        return True

    def _keep_watch(self) -> None:
        """Sleep until the first deadline. A job that begins meanwhile has a later one."""
        try:
            wait_s = self._max_seconds
            while not self._closed.wait(min(wait_s, threading.TIMEOUT_MAX)):
                now = time.monotonic()
                running = [(thread, job) for thread in self._threads if (job := thread.job)]
                for thread, job in running:
                    if job.deadline <= now and job.claim():
                        self._replace(thread, job)
                later = [job.deadline - now for _, job in running if job.deadline > now]
                wait_s = min([*later, self._max_seconds])
        except BaseException as broken:
            self._on_broken(broken)

    def _replace(self, thread: _Thread, job: _Job) -> None:
        self._threads.remove(thread)
        self._abandoned = [each for each in self._abandoned if each.is_alive()] + [thread]
        thread.abandon()
        if len(self._abandoned) > MOST_STUCK:
            raise BackendError(
                f"{len(self._abandoned)} files could not be read within {self._max_seconds:g} s, "
                "and are still waited for: make sure that their file system answers"
            )
        self._start_thread(replaces=True)
        job.place(
            ImageError(
                f"took more than {self._max_seconds:g} s to read and decode; "
                "raise it with --max-seconds"
            )
        )


def abandoned_decoders_run() -> bool:
    """Whether a thread that was given up is still busy in this process."""
    return any(thread.name == _ABANDONED for thread in threading.enumerate())


class _Thread(threading.Thread):
    """One of the pool's, with its decoder, and the job that is in its first phase."""

    def __init__(self, decoder: Decoder, work: Callable[[_Thread], None]):
        # Daemons: the interpreter's end waits for all others, however long they take.
        super().__init__(name="decode", daemon=True)
        self.decoder, self._work = decoder, work
        self.job: _Job | None = None

    def run(self) -> None:
        """See `threading.Thread`."""
        self._work(self)

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self.name = _ABANDONED
        self.decoder.abandon()
