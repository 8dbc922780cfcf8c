"""What an engine leaves out: in which order, and what its scores are then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.engine.ensembles import VOTE, make_ensemble
from trtdet.engine import reductions as module
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import Ensemble, open_any
from trtdet.engine.geometry import Geometry
from trtdet.engine.pipeline import score
from trtdet.engine.reductions import Reduction, reduce_engine, reductions
from trtdet.engine.steps import CenterCrop, TenCrop
from trtdet.engine.table import Row


class ListSink:
    def __init__(self) -> None:
        self.scores: list[float] = []
        self.failures = 0

    def write(self, filename, logits, reason):
        assert reason is None, reason
        self.scores.append(float(*logits))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Large enough for ten crops."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(3)
    paths = []
    for number, (width, height) in enumerate([(300, 280), (256, 400), (333, 257)] * 5):
        pixels = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture
def together(tmp_path, small_bundle) -> Ensemble:
    opened = open_any(make_ensemble(tmp_path / "together", small_bundle))
    assert isinstance(opened, Ensemble)
    return opened


def ten_crops(bundle: Bundle) -> Bundle:
    return replace(bundle, geometry=Geometry.of(TenCrop(256, 256)))


def scores(engine, paths) -> list[float]:
    sink = ListSink()
    rows = (Row(index, str(path)) for index, path in enumerate(paths))
    score(rows, lambda row: Path(row.filename), engine, sink, decode_threads=2)
    return sink.scores


def opened(bundle, **how):
    return open_engine(choose_backend("openvino")[0], bundle, **how)


def test_views_go_first_and_then_the_dearest_members(together, monkeypatch):
    cropped, stretched, whole = together.members
    members = (ten_crops(cropped), stretched, whole)
    cost = {"cropped": 2.0, "stretched": 3.0, "whole": 1.0}
    monkeypatch.setattr(module, "_seconds", lambda lane: cost[lane.bundle.name])
    with opened(replace(together, members=members)) as engine:
        assert reductions(engine) == [
            Reduction("views", "cropped", "9 of 10 views of cropped"),
            Reduction("member", "stretched", "member stretched"),
            Reduction("member", "cropped", "member cropped"),
        ]


def test_what_a_member_costs_is_measured(together):
    cropped, stretched, whole = together.members
    with opened(replace(together, members=(stretched, ten_crops(cropped), whole))) as engine:
        assert [each.bundle for each in reductions(engine)][:2] == ["cropped", "cropped"]


def test_an_engine_of_one_view_has_nothing_to_leave_out(small_bundle):
    with opened(open_bundle(small_bundle)) as engine:
        assert reductions(engine) == []


@pytest.mark.parametrize("batch", [1, 3])
def test_without_its_other_views_it_scores_the_centre(small_bundle, photographs, batch):
    bundle = open_bundle(small_bundle)
    centre = replace(bundle, geometry=Geometry.of(CenterCrop(256, 256)))
    with opened(centre, batch=1) as engine:
        expected = scores(engine, photographs)
    with opened(ten_crops(bundle), batch=batch) as engine:
        ten = scores(engine, photographs)
        (views,) = reductions(engine)
        once = reduce_engine(engine, views)
        assert once.batch == 10 * batch  # the network's input keeps its shape
        assert reductions(once) == []
        assert scores(once, photographs) == expected
    assert not set(ten) & set(expected)


def test_without_a_member_the_others_vote(together, photographs):
    first, _, third = together.members
    with opened(
        replace(together, members=(first, third), vote=replace(VOTE, weights=(1.0, 0.5)))
    ) as engine:
        expected = scores(engine, photographs)
    with opened(third) as engine:
        alone = scores(engine, photographs)
    with opened(together) as engine:
        every = scores(engine, photographs)
        fewer = reduce_engine(engine, Reduction("member", "stretched", ""))
        assert scores(fewer, photographs) == expected != every
        last = reduce_engine(fewer, Reduction("member", "cropped", ""))
        vote = replace(VOTE, weights=(0.5,))
        assert scores(last, photographs) == vote.apply([np.float32(alone)]).tolist()


def test_views_of_a_member_go_while_the_others_stay(together, photographs):
    first, second, third = together.members
    with opened(together, batch=2) as engine:
        expected = scores(engine, photographs)
    crops = replace(together, members=(ten_crops(first), second, third))
    with opened(crops, batch=2) as engine:
        once = reduce_engine(engine, Reduction("views", "cropped", ""))
        assert once.batch == 2
        assert scores(once, photographs) == expected
