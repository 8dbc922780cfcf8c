"""The steps that every build ends with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trtdet.build.placing import keep_plans, tool_versions
from trtdet.engine.bundle import GRAPH, PLANS
from trtdet.engine.digest import sha256_file
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, write_plan
from trtdet.engine.store import RECORD, check_place
from trtdet.errors import InputError


def test_a_build_takes_the_place_of_nothing_an_empty_folder_or_a_bundle(tmp_path):
    check_place(tmp_path / "new")
    check_place(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists and is not a bundle: choose another --out"):
        check_place(tmp_path)
    with pytest.raises(InputError, match="exists and is not a bundle"):
        check_place(tmp_path / "thesis.tex")
    (tmp_path / RECORD).touch()
    check_place(tmp_path)


def test_plans_of_the_very_same_graph_are_kept(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / PLANS).mkdir(parents=True)
    new.mkdir()
    (new / GRAPH).write_bytes(b"graph")
    key = PlanKey("tensorrt", "10.3.0", "sm_87", sha256_file(new / GRAPH), 1, ())
    same = write_plan(old / PLANS, Plan(key, b"same"))
    write_plan(old / PLANS, Plan(replace(key, graph_sha256="0" * 64), b"other"))
    for name, record in (("damaged", "{}"), ("torn", '{"key": '), ("lost", same.name)):
        (old / PLANS / f"{name}.json").write_text(record)
    (old / PLANS / "damaged.plan").write_bytes(b"damaged")
    (old / "kernels").mkdir()
    (old / "kernels/sm_87.cubin").write_bytes(b"kernels")
    keep_plans(old, new)
    assert (new / "kernels/sm_87.cubin").read_bytes() == b"kernels"
    kept = sorted(path.name for path in (new / PLANS).iterdir())
    assert kept == [same.with_suffix(".json").name, same.name]
    assert (new / PLANS / same.name).read_bytes() == b"same"
    keep_plans(tmp_path / "nowhere", new)


def test_the_tools_of_a_build_have_their_versions():
    import numpy as np

    versions = tool_versions("numpy")
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"trtdet", "python", "numpy"}
