"""The pool of decode threads: every image once, within its time, and nothing after it."""

from __future__ import annotations

import random
import threading
import time
from queue import SimpleQueue

import numpy as np
import pytest

from trtdet.engine import decode_pool
from trtdet.engine.decode_pool import DecodePool, abandoned_decoders_run
from trtdet.errors import BackendError, ImageError

PIXELS = np.zeros((1, 1, 3), np.uint8)


class Decoder:
    """Notes what the pool does with it."""

    def __init__(self, replaces: bool):
        self.replaces, self.abandoned, self.closed = replaces, False, False

    def ready(self) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned = True

    def close(self) -> None:
        self.closed = True


class Pool:
    """A `DecodePool` and what came of it."""

    def __init__(self, threads: int, max_seconds: float):
        self.decoders: list[Decoder] = []
        self.broken: SimpleQueue[BaseException] = SimpleQueue()
        self.placed: SimpleQueue[tuple[object, object]] = SimpleQueue()
        self.pool = DecodePool(threads, max_seconds, self._open, self.broken.put)

    def _open(self, replaces: bool) -> Decoder:
        self.decoders.append(Decoder(replaces))
        return self.decoders[-1]

    def submit(self, name: object, decode) -> None:
        self.pool.submit(decode, lambda result: self.placed.put((name, result)))

    def next(self, timeout: float = 10) -> tuple[object, object]:
        return self.placed.get(timeout=timeout)


def raising(error: BaseException):
    def decode(_decoder: Decoder):
        raise error

    return decode


def test_every_image_is_placed_once_and_decoders_are_closed():
    pool = Pool(4, 60)
    with pool.pool:
        for number in range(200):
            pool.submit(number, lambda _: PIXELS)
        results = [pool.next() for _ in range(200)]
    assert sorted(name for name, _ in results) == list(range(200))
    assert all(result is PIXELS for _, result in results)
    assert [decoder.closed for decoder in pool.decoders] == [True] * 4
    assert not any(decoder.replaces or decoder.abandoned for decoder in pool.decoders)


def test_an_image_that_takes_too_long_costs_its_row_and_nothing_comes_of_it_later():
    pool, late = Pool(2, 0.3), threading.Event()
    with pool.pool:
        start = time.monotonic()
        for name in ("a", "b"):  # both threads hang
            pool.submit(name, lambda _: late.wait(20) and PIXELS)
        pool.submit("good", lambda _: PIXELS)
        first = [pool.next() for _ in range(3)]
        assert time.monotonic() - start < 2.3
        reasons = {name: str(result) for name, result in first if name != "good"}
        expected = "took more than 0.3 s to read and decode; raise it with --max-seconds"
        assert reasons == {"a": expected, "b": expected}
        assert dict(first)["good"] is PIXELS
        assert [decoder.replaces for decoder in pool.decoders] == [False, False, True, True]
        assert [decoder.abandoned for decoder in pool.decoders] == [True, True, False, False]
        assert abandoned_decoders_run()
        late.set()
        deadline = time.monotonic() + 5
        while abandoned_decoders_run() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not abandoned_decoders_run()
    assert pool.placed.empty()
    assert pool.broken.empty()
    assert all(decoder.closed for decoder in pool.decoders)


def test_at_the_limit_either_the_pixels_or_the_reason_are_placed_but_not_both():
    pool, rng = Pool(8, 0.05), random.Random(1)
    with pool.pool:
        for number in range(150):
            seconds = 0.05 + rng.uniform(-0.03, 0.03)
            pool.submit(number, lambda _, seconds=seconds: time.sleep(seconds) or PIXELS)
        results = [pool.next() for _ in range(150)]
        time.sleep(0.2)
        assert pool.placed.empty()
    assert sorted(name for name, _ in results) == list(range(150))
    late = sum(isinstance(result, ImageError) for _, result in results)
    assert 0 < late < 150  # both happened
    assert pool.broken.empty()


def test_a_slow_placing_is_never_abandoned():
    pool, placed = DecodePool(1, 0.1, Decoder, print), []
    with pool:
        pool.submit(lambda _: PIXELS, lambda result: time.sleep(0.5) or placed.append(result))
        time.sleep(0.05)
    assert placed == [PIXELS]  # and the end of the pool waited for it


def test_the_end_waits_for_no_decoder():
    pool, never = Pool(2, 60), threading.Event()
    start = time.monotonic()
    with pool.pool:
        for number in range(10):
            pool.submit(number, lambda _: never.wait(20) and PIXELS)
        time.sleep(0.1)
    assert time.monotonic() - start < 1
    assert [decoder.abandoned for decoder in pool.decoders] == [True, True]
    never.set()
    time.sleep(0.1)
    assert pool.placed.empty()
    assert pool.broken.empty()


def test_refusals_are_placed_and_bugs_are_heard_of():
    pool = Pool(2, 60)
    with pool.pool:
        pool.submit("refused", raising(ImageError("damaged")))
        assert str(pool.next()[1]) == "damaged"
        pool.submit("memory", raising(MemoryError()))
        assert str(pool.next()[1]) == "not enough memory to read and decode it"
        pool.submit("bug", raising(ZeroDivisionError("a bug")))
        assert str(pool.broken.get(timeout=5)) == "a bug"
        pool.pool.submit(lambda _: PIXELS, raising(KeyError("another")))
        assert "another" in str(pool.broken.get(timeout=5))
    assert pool.placed.empty()


def test_a_file_system_that_never_answers_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode_pool, "MOST_STUCK", 3)
    pool, never = Pool(1, 0.05), threading.Event()
    with pool.pool:
        for number in range(9):
            pool.submit(number, lambda _: never.wait(20) and PIXELS)
        error = pool.broken.get(timeout=5)
    assert isinstance(error, BackendError)
    assert "4 files could not be read within 0.05 s" in str(error)
    never.set()
