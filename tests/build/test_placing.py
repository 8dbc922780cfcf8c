"""The steps that every build ends with."""

from __future__ import annotations

import json

import pytest

from trtdet.build.placing import keep_plans, tool_versions
from trtdet.engine.bundle import GRAPH, PLANS
from trtdet.engine.digest import sha256_file
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
    for name, sha256 in (("same", sha256_file(new / GRAPH)), ("other", "0" * 64)):
        (old / PLANS / f"{name}.plan").write_bytes(name.encode())
        (old / PLANS / f"{name}.json").write_text(json.dumps({"key": {"graph_sha256": sha256}}))
    (old / PLANS / "lost.json").write_text("{}")  # its plan is gone
    keep_plans(old, new)
    kept = sorted(path.name for path in (new / PLANS).iterdir())
    assert kept == ["same.json", "same.plan"]
    assert (new / PLANS / "same.plan").read_bytes() == b"same"
    keep_plans(tmp_path / "nowhere", new)


def test_the_tools_of_a_build_have_their_versions():
    import numpy as np

    versions = tool_versions("numpy")
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"trtdet", "python", "numpy"}
