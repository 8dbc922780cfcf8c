"""Who listens hears every part of a run, from all threads, and only while it listens."""

from __future__ import annotations

from collections import Counter

from trtdet.calibration.scoring import score_each
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.nvtx import listen, stage


def test_a_run_is_heard_part_by_part(small_bundle, pictures):
    backend, _ = choose_backend("openvino")
    parts: Counter[str] = Counter()
    seconds = 0.0

    def heard(name: str, took: float) -> None:
        nonlocal seconds
        parts[name] += 1
        seconds += took

    with open_engine(backend, open_bundle(small_bundle), batch=1) as engine:
        with listen(heard):
            score_each(engine, pictures, threads=1)
        before = dict(parts)
        score_each(engine, pictures, threads=1)
    assert before == dict.fromkeys(("decode", "geometry", "copy", "load", "write"), len(pictures))
    assert parts == before
    assert seconds > 0


def test_a_part_that_fails_is_heard_and_fails():
    heard = []
    with listen(lambda name, _seconds: heard.append(name)):
        try:
            with stage("outer"), stage("inner"):
                raise ValueError
        except ValueError:
            heard.append("raised")
    assert heard == ["inner", "outer", "raised"]
