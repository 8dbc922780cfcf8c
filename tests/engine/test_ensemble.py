"""Several bundles in one folder: one decode, one vote, one row."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.ensembles import MEMBERS, VOTE, make_ensemble
from tests.engine.list_sink import ListSink
from trtdet.engine import decode_pool, pipeline
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.decision import AS_IT_IS
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import Ensemble, open_any
from trtdet.engine.table import Row
from trtdet.errors import BundleError, InputError


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory, small_bundle) -> Path:
    return make_ensemble(tmp_path_factory.mktemp("ensembles") / "together", small_bundle)


@pytest.fixture
def copy(ensemble, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(ensemble, tmp_path / "copy")


def run(bundle: Bundle | Ensemble, names, batch: int | None = None) -> list:
    sink = ListSink()
    backend, _ = choose_backend("openvino")
    with open_engine(backend, bundle, batch=batch) as engine:
        assert engine.columns == ("logit",)
        summary = pipeline.score(
            (Row(index, str(name)) for index, name in enumerate(names)),
            lambda row: Path(row.filename),
            engine,
            sink,
            decode_threads=2,
        )
    assert (summary.rows, summary.failures) == (len(sink.rows), sink.failures)
    return sink.rows


def scores_of(member: Bundle, names) -> np.ndarray:
    """A member's own scores, float32 [N], by its decision on its network's logits."""
    raw = [row[1][0] for row in run(replace(member, decision=AS_IT_IS), names)]
    scores = member.decision.apply(np.array(raw, np.float32))
    assert [row[1][0] for row in run(member, names)] == list(scores)
    return scores


def test_the_record_reads_back(ensemble):
    opened = open_any(ensemble)
    assert isinstance(opened, Ensemble)
    assert (opened.name, opened.vote, opened.precision) == ("together", VOTE, "fp32")
    assert [member.name for member in opened.members] == list(MEMBERS)
    assert [member.geometry for member in opened.members] == [each[0] for each in MEMBERS.values()]
    assert opened.to_json() == json.loads((ensemble / "bundle.json").read_text())


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("combine", ["mean-probability", "mean-logit"])
def test_scores_are_the_vote_of_the_members_scores(ensemble, pictures, combine, batch):
    opened = open_any(ensemble)
    opened = replace(opened, vote=replace(VOTE, combine=combine))
    alone = [scores_of(member, pictures) for member in opened.members]
    assert len(np.unique(np.array(alone))) == len(MEMBERS) * len(pictures)  # all of them differ
    expected = opened.vote.apply(alone)
    rows = run(opened, pictures, batch)
    assert [name for name, _, _ in rows] == list(map(str, pictures))
    assert [logits for _, logits, _ in rows] == [[logit] for logit in expected]  # every bit


def test_an_image_is_read_and_decoded_once(ensemble, pictures, monkeypatch):
    decoded = []
    real = decode_pool.decode_rgb

    def counting(data, **options):
        decoded.append(len(data))
        return real(data, **options)

    monkeypatch.setattr(decode_pool, "decode_rgb", counting)
    rows = run(open_any(ensemble), [*pictures, *pictures])
    assert len(rows) == len(decoded) == 2 * len(pictures)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_bad_image_costs_one_row(ensemble, pictures, tmp_path, batch):
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    good = {name: logits for name, logits, _ in run(open_any(ensemble), pictures[:5], batch)}
    names = [pictures[0], text, *pictures[1:5], tmp_path / "missing.jpg"]
    rows = run(open_any(ensemble), names, batch)
    assert [name for name, _, _ in rows] == list(map(str, names))
    failed = {name: reason for name, logits, reason in rows if logits is None}
    assert list(failed) == [str(text), str(tmp_path / "missing.jpg")]
    assert "not an image" in failed[str(text)]
    assert {name: logits for name, logits, _ in rows if logits is not None} == good


def test_a_changed_member_is_refused(copy):
    record = copy / "members/whole/bundle.json"
    record.write_text(record.read_text().replace('"batch": 1', '"batch": 2'))
    with pytest.raises(BundleError, match=r"members/whole is not the member.*make it again"):
        open_any(copy)


def test_a_missing_or_damaged_member_is_refused(copy):
    with (copy / "members/stretched/model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"stretched/model\.onnx was altered"):
        open_any(copy)
    shutil.rmtree(copy / "members/stretched")
    with pytest.raises(BundleError, match=r"members/stretched is not the member"):
        open_any(copy)


@pytest.mark.parametrize(
    "damage",
    [
        {"weights": [1.0]},
        {"weights": [1.0, 1.0, 0.0]},
        {"weights": "111"},
        {"members": {}},
        {"members": ["whole"]},
        {"members": {"../whole": "0", "b": "0", "c": "0"}},
        {"combine": "median"},
        {"threshold": 1.0},
        {"threshold": "0.5"},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(copy, damage):
    record = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**record, **damage}))
    with pytest.raises(BundleError, match=r"is damaged .*: build it again"):
        open_any(copy)


def test_one_bundle_opens_too_and_an_ensemble_is_no_bundle(ensemble, small_bundle):
    assert open_any(small_bundle) == open_bundle(small_bundle)
    with pytest.raises(BundleError, match=r"is an ensemble: this needs one of .*members"):
        open_bundle(ensemble)


def test_sessions_close_when_one_member_cannot_open(ensemble, monkeypatch):
    from trtdet.engine import engine

    opened, closed = [], []
    real = engine.open_session

    def opening(backend, bundle, **options):
        if len(opened) == 2:
            raise InputError("the third")
        session, drift = real(backend, bundle, **options)
        opened.append(session)
        close = session.close
        monkeypatch.setattr(session, "close", lambda: (closed.append(session), close()))
        return session, drift

    monkeypatch.setattr(engine, "open_session", opening)
    backend, _ = choose_backend("openvino")
    with ExitStack() as stack, pytest.raises(InputError, match="the third"):
        stack.enter_context(open_engine(backend, open_any(ensemble)))
    assert closed == opened[::-1]
    assert len(closed) == 2
