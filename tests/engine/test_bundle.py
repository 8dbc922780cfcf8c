from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from trtdet.engine import store
from trtdet.engine.backends import choose_backend, open_session
from trtdet.engine.bundle import (
    Probes,
    load_probes,
    measure_drift,
    open_bundle,
    save_probes,
    write_record,
)
from trtdet.engine.decision import Decision
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import Trim
from trtdet.engine.tiles import Blocks, Tiling
from trtdet.errors import BackendError, BundleError, DriftError, InputError


@pytest.fixture
def copy(small_bundle, tmp_path):
    """A copy of the small bundle that a test may damage."""
    return shutil.copytree(small_bundle, tmp_path / "copy")


def edit(folder, **changes):
    record = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**record, **changes}))


def test_a_bundle_opens_and_its_record_reads_back(copy):
    bundle = open_bundle(copy)
    assert bundle.to_json() == json.loads((copy / "bundle.json").read_text())
    assert bundle.precision == "fp32"
    assert set(bundle.hashes) == {"model.onnx", "probes.npz"}
    assert load_probes(copy).logits.shape == (4, len(bundle.outputs))


def test_tilings_decisions_and_outputs_read_back(copy):
    bundle = open_bundle(copy)
    changed = replace(
        bundle,
        geometry=Geometry.of(Trim(2)),
        tiling=Tiling(8, 48, 640, 512, Blocks(over=1536, side=1024)),
        decision=Decision(2.5, -0.125),
        outputs=("one", "two"),
    )
    write_record(changed, copy)
    assert open_bundle(copy) == changed
    write_record(replace(changed, tiling=Tiling(8, 48, 640, 512)), copy)
    assert open_bundle(copy).tiling == Tiling(8, 48, 640, 512, None)


def test_a_damaged_bundle_is_refused_by_name(copy):
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        open_bundle(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"no model\.onnx"):
        open_bundle(copy)


def test_other_schemas_and_broken_records_are_refused(copy, tmp_path):
    edit(copy, schema=999)
    with pytest.raises(BundleError, match="schema 999"):
        open_bundle(copy)
    (copy / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="cannot read"):
        open_bundle(copy)
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)


GEOMETRY = {"kind": "stretch", "height": 256, "width": 256, "filter": "bilinear"}


@pytest.mark.parametrize(
    "damage",
    [
        {"hashes": {}},
        {"hashes": []},
        {"batch": "x"},
        {"batch": 0},
        {"tolerance": "a"},
        {"geometry": GEOMETRY},  # of an older schema
        {"geometry": [{**GEOMETRY, "width": "256"}]},
        {"geometry": [{**GEOMETRY, "height": -1}]},
        {"geometry": [{**GEOMETRY, "filter": "nope"}]},
        {"geometry": []},  # native, without a tiling
        {"tiling": {"stride": 8, "halo": 8, "tile": 64, "channels": 2, "blocks": None}},
        {"tiling": {"stride": 8, "halo": 7, "tile": 64, "channels": 2, "blocks": None}},
        {"tiling": {"stride": 8}},
        {"outputs": []},
        {"decision": {"scale": 0.0, "shift": 0.0}},
        {"decision": {"scale": float("nan"), "shift": 0.0}},
        {"decision": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(copy, damage):
    edit(copy, **damage)
    with pytest.raises(BundleError, match=r"build (it|the bundle) again"):
        open_bundle(copy)


def test_opening_rescores_the_probes(copy):
    backend, _ = choose_backend("openvino")
    bundle = open_bundle(copy)
    session, drift = open_session(backend, bundle, batch=3)
    with closing(session):
        assert drift.max_relative <= bundle.tolerance
    probes = load_probes(copy)
    logits = probes.logits.copy()
    logits[2] += 2 * bundle.tolerance * (1 + abs(logits[2]))
    save_probes(Probes(probes.images, logits), copy)
    with pytest.raises(DriftError, match="its scores would be wrong"):
        open_session(backend, bundle, batch=1)


def test_drift_of_a_nan_is_infinite():
    one = np.ones(2, np.float32)
    assert measure_drift(np.array([1, np.nan], np.float32), one, "x").max_abs == np.inf
    drift = measure_drift(np.array([1, 1.5], np.float32), one, "x")
    assert (drift.max_abs, drift.max_relative) == (0.5, 0.25)


def test_probes_of_another_shape_are_no_reference(copy):
    bundle, probes = open_bundle(copy), load_probes(copy)
    save_probes(Probes(probes.images, probes.logits[:, 0]), copy)
    backend, _ = choose_backend("openvino")
    with pytest.raises(BundleError, match=r"logits of shape \[4\], and the network gives \[4, 1\]"):
        open_session(backend, bundle, batch=1)


def test_a_backend_that_cannot_run_says_why():
    if choose_backend("auto")[0].name == "tensorrt":
        pytest.skip("TensorRT runs here")
    with pytest.raises(BackendError, match="tensorrt: "):
        choose_backend("tensorrt")
    chosen, rejected = choose_backend("auto")
    assert chosen.name == "openvino"
    assert [status.name for status in rejected] == ["tensorrt"]
    assert rejected[0].reason


def test_the_store_finds_names_paths_and_the_default(small_bundle):
    assert store.find_bundle(None) == store.starter_bundle()
    folder = store.bundle_folder("one")
    shutil.copytree(small_bundle, folder)
    store.set_default(folder)
    assert store.find_bundle(None) == folder
    assert store.find_bundle("one") == folder
    assert store.find_bundle(str(small_bundle)) == small_bundle
    assert store.stored_bundles() == ["one"]
    assert (store.store_folder() / "default").read_text() == "one\n"
    with pytest.raises(BundleError, match="Did you mean 'one'"):
        store.find_bundle("onne")
    store.set_default(small_bundle)
    assert store.find_bundle(None) == small_bundle
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match="there is starter"):
        store.find_bundle("one")


def test_a_default_that_is_gone_is_said(tmp_path):
    store.set_default(tmp_path / "gone")
    with pytest.raises(BundleError, match="is gone"):
        store.find_bundle(None)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_that_would_leave_the_store_are_refused(name):
    with pytest.raises(InputError, match="cannot name a bundle"):
        store.bundle_folder(name)
