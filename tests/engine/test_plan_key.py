"""The identity of a plan."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trtdet.engine.plan_key import PlanKey

KEY = PlanKey("tensorrt-rtx", "1.7.1.116", "sm_86", "0" * 64, 1, (("tf32", "off"),))


def test_every_field_of_the_key_is_in_the_name() -> None:
    others = [
        replace(KEY, flavour="tensorrt"),
        replace(KEY, version="1.7.1.117"),
        replace(KEY, target="sm_120"),
        replace(KEY, graph_sha256="1" * 64),
        replace(KEY, batch=2),
        replace(KEY, options=()),
        replace(KEY, schema=KEY.schema + 1),
    ]
    names = {key.file_name for key in (KEY, *others)}
    assert len(names) == 1 + len(others)
    assert KEY.file_name == replace(KEY).file_name
    assert KEY.file_name == "tensorrt-rtx-1.7.1.116-sm_86-b1-1ef1760f802f.plan"  # for ever


def test_a_range_of_batches_and_of_sides() -> None:
    assert KEY.batches == (1, 1)
    assert KEY.sides is None
    ranged = replace(KEY, batch=8, options=(("profile", "1,8,32"), ("tf32", "off")))
    assert ranged.batches == (1, 32)
    assert "-sm_86-b1-8-32-" in ranged.file_name
    native = replace(KEY, options=(("sides", "2,1024"),))
    assert native.sides == (2, 1024)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        replace(KEY, options=()),
        replace(KEY, batch=8, options=(("profile", "1,8,32"), ("sides", "1,640"), ("tf32", "off"))),
    ],
)
def test_a_key_is_read_as_it_was_written(key: PlanKey) -> None:
    assert PlanKey.from_json(json.loads(json.dumps(key.to_json()))) == key


@pytest.mark.parametrize(
    "change",
    [
        {"flavour": "onnx"},
        {"flavour": ["tensorrt"]},
        {"version": 10},
        {"version": "../10"},
        {"version": "10\x1b[2J"},
        {"graph_sha256": "0" * 63},
        {"batch": "1"},
        {"batch": True},
        {"schema": None},
        {"options": ["tf32"]},
        {"options": {"tf32": 0}},
        {"options": {"profile": "many"}},
        {"options": {"sides": "2"}, "batch": None},
        {"another": "field"},
    ],
)
def test_what_is_no_key_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"key|literal"):
        PlanKey.from_json({**KEY.to_json(), **change})


@pytest.mark.parametrize("record", [None, [], "key", {}, 1])
def test_what_is_no_record_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match="no plan's key"):
        PlanKey.from_json(record)
