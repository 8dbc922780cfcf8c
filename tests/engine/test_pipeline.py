"""The pipeline on a real compiled graph: order, padding, failures, memory, shutdown."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trtdet.engine import openvino, pipeline
from trtdet.engine.backends import choose_backend, compile_graph, infer
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, Limits, decode_rgb
from trtdet.engine.engine import Engine, Lane
from trtdet.engine.geometry import apply_geometry
from trtdet.engine.table import Row
from trtdet.errors import BackendError

DEFAULT_LIMITS = Limits()


class ListSink:
    """Keeps rows as they are written."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float | None, str | None]] = []
        self.failures = 0

    def write(self, filename, logits, reason):
        self.failures += logits is None
        self.rows.append((filename, None if logits is None else float(*logits), reason))


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


def open_small(bundle: Bundle, batch: int = 1, slots: int | None = None):
    backend, _ = choose_backend("openvino")
    return compile_graph(backend, bundle.graph, bundle.geometry, batch=batch, slots=slots)


def engine_of(session, bundle: Bundle) -> Engine:
    return Engine((Lane(session, bundle.decision, bundle),), bundle.outputs)


def run(bundle, names, *, batch=1, threads=2, slots=None, limits=DEFAULT_LIMITS, isolate=False):
    sink = ListSink()
    rows = (Row(index, str(name)) for index, name in enumerate(names))
    with closing(open_small(bundle, batch, slots)) as session:
        summary = pipeline.score(
            rows,
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            sink,
            decode_threads=threads,
            limits=limits,
            isolate=isolate,
        )
    assert summary.rows == len(sink.rows)
    assert summary.failures == sink.failures
    return sink.rows


def test_rows_come_out_in_order_with_the_scores_of_one_at_a_time(bundle, pictures):
    names = [*pictures, *pictures[::-1]]
    alone = {}
    with closing(open_small(bundle)) as session:
        for path in pictures:
            rgb = decode_rgb(path.read_bytes(), max_pixels=DEFAULT_MAX_PIXELS)
            views = apply_geometry(bundle.geometry, rgb)
            alone[str(path)] = float(infer(session, [views])[0, 0])
    rows = run(bundle, names)
    assert rows == [(str(name), alone[str(name)], None) for name in names]
    assert len(set(alone.values())) == len(pictures)  # the scores tell the images apart


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_score_is_the_same_bits_whatever_its_neighbours(bundle, pictures, batch, threads):
    expected = {name: logit for name, logit, _ in run(bundle, pictures)}
    order = random.Random(batch * 10 + threads)
    names = [order.choice(pictures) for _ in range(40)]
    for name, logit, reason in run(bundle, names, batch=batch, threads=threads):
        assert reason is None
        assert logit == expected[name]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_bad_image_costs_its_row_and_nothing_else(bundle, pictures, tmp_path, batch):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[1].read_bytes()[:-200])
    bad = {
        "": "no file name",
        str(tmp_path / "missing.jpg"): "not found",
        str(tmp_path): "folder",
        str(empty): "empty",
        str(text): "not an image",
        str(cut): "truncated",
        "nul\0.jpg": "",
    }
    names = [name for pair in zip(pictures, bad, strict=False) for name in map(str, pair)]
    good = {name: logit for name, logit, _ in run(bundle, pictures, batch=batch)}
    for name, logit, reason in run(bundle, names, batch=batch):
        if name in bad:
            assert logit is None
            assert bad[name] in reason.lower()
        else:
            assert (logit, reason) == (good[name], None)


def test_the_pixel_limit_is_a_row_with_a_reason(bundle, pictures):
    ((_, logit, reason),) = run(bundle, pictures[:1], limits=Limits(max_pixels=100))
    assert logit is None
    assert "--max-pixels" in reason


def test_a_file_that_is_read_too_slowly_costs_its_row_and_reaches_no_slot(
    bundle, pictures, monkeypatch
):
    """What is read at last, when its slot has other images, is thrown away."""
    slow, real, late = str(pictures[0]), pipeline.read_image_file, threading.Event()

    def read(path, **options):
        time.sleep(2.5 if str(path) == slow else 0.02)
        if str(path) == slow:
            late.set()
        return real(path, **options)

    good = {name: logit for name, logit, _ in run(bundle, pictures[1:])}
    monkeypatch.setattr(pipeline, "read_image_file", read)
    names = [slow, *list(pictures[1:]) * 20]
    rows = run(bundle, names, batch=2, slots=2, limits=Limits(max_seconds=1.5))
    assert rows[0] == (
        slow,
        None,
        "took more than 1.5 s to read and decode; raise it with --max-seconds",
    )
    assert rows[1:] == [(str(name), good[str(name)], None) for name in names[1:]]
    assert late.is_set()  # it came while the others were scored


def test_isolated_decoders_give_the_same_rows(bundle, pictures, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[1].read_bytes()[:-200])
    names = [*pictures, cut, tmp_path / "missing.png"]
    assert run(bundle, names, isolate=True) == run(bundle, names)


def test_scoring_leaves_the_arithmetic_of_the_process_alone(bundle, pictures):
    run(bundle, pictures[:2])
    assert np.float32(1e-40) * np.float32(0.5) > 0  # no denormal is flushed in this thread


def test_no_rows_is_no_error(bundle):
    assert run(bundle, []) == []


def test_a_slow_image_holds_nobody_up_but_its_place(bundle, pictures, monkeypatch):
    slow = str(pictures[0])
    real = pipeline.read_image_file
    others_done = threading.Event()

    def read(path, **options):
        if str(path) == slow:
            others_done.wait(timeout=10)
        return real(path, **options)

    monkeypatch.setattr(pipeline, "read_image_file", read)
    started = []
    session = open_small(bundle, slots=6)
    start = session.start

    def counting(slot):
        started.append(slot)
        if len(started) == 5:  # every other slot was inferred while the first was read
            others_done.set()
        start(slot)

    monkeypatch.setattr(session, "start", counting)
    sink = ListSink()
    with closing(session):
        pipeline.score(
            (Row(index, str(path)) for index, path in enumerate(pictures)),
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            sink,
            decode_threads=2,
        )
    assert started[0] != 0
    assert [name for name, _, _ in sink.rows] == [str(path) for path in pictures]


def test_rows_are_taken_from_the_table_only_as_slots_come_free(bundle, pictures):
    taken = 0
    ahead = []

    def rows():
        nonlocal taken
        for index in range(200):
            taken += 1
            yield Row(index, str(pictures[index % len(pictures)]))

    sink = ListSink()
    with closing(open_small(bundle, slots=4)) as session:
        pipeline.score(
            rows(),
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            sink,
            decode_threads=2,
            on_rows=lambda _count: ahead.append(taken - len(sink.rows)),
        )
    assert len(sink.rows) == 200
    assert max(ahead) <= 4


def test_too_little_memory_for_one_image_costs_its_row(bundle, pictures, monkeypatch):
    def short(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(openvino, "apply_geometry", short)
    ((_, logit, reason),) = run(bundle, pictures[:1])
    assert logit is None
    assert "not enough memory" in reason


def test_a_bug_in_a_decode_thread_is_raised_and_not_waited_for(bundle, pictures, monkeypatch):
    def broken(*_args, **_options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(openvino, "apply_geometry", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(bundle, pictures)


class FailedRequest:
    """What OpenVINO leaves of a request that threw: it ended, and nobody was called back."""

    def start_async(self) -> None:
        pass

    def wait_for(self, _milliseconds: int) -> bool:
        return True

    def wait(self) -> None:
        raise RuntimeError("out of memory")


def test_a_request_that_fails_ends_the_run(bundle, pictures, monkeypatch):
    monkeypatch.setattr(pipeline, "LIVENESS_S", 0.05)
    session = open_small(bundle)
    session._requests[0] = FailedRequest()
    with closing(session), pytest.raises(BackendError, match="failed while it ran: out of memory"):
        pipeline.score(
            [Row(0, str(pictures[0]))],
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            ListSink(),
            decode_threads=1,
        )


def test_a_network_that_gives_nan_is_a_row_with_a_reason(bundle, pictures, monkeypatch):
    session = open_small(bundle)
    monkeypatch.setattr(session, "logits", lambda _slot: np.array([[np.nan]], np.float32))
    sink = ListSink()
    with closing(session):
        pipeline.score(
            [Row(0, str(pictures[0]))],
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            sink,
            decode_threads=1,
        )
    assert sink.rows == [(str(pictures[0]), None, "the network gave nan")]


def test_interrupting_ends_promptly(bundle, pictures):
    def interrupted(_count):
        raise KeyboardInterrupt

    start = time.monotonic()
    with closing(open_small(bundle)) as session, pytest.raises(KeyboardInterrupt):
        pipeline.score(
            (Row(index, str(pictures[0])) for index in range(100_000)),
            lambda row: Path(row.filename),
            engine_of(session, bundle),
            ListSink(),
            decode_threads=2,
            on_rows=interrupted,
        )
    assert time.monotonic() - start < 30
