"""Ranges: what they depend on, and passes over the images that stop and go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="calibration needs onnx (trtdet[build])")

from tests.calibration.small_graphs import SIDE, residual_net  # noqa: E402
from trtdet.calibration.draw import draw_set  # noqa: E402
from trtdet.calibration.ranges import (  # noqa: E402
    RANGES,
    choose_ranges,
    observe,
    range_key,
    read_ranges,
    write_ranges,
)
from trtdet.engine.bundle import SCHEMA  # noqa: E402
from trtdet.engine.digest import sha256_file  # noqa: E402
from trtdet.engine.geometry import Geometry  # noqa: E402
from trtdet.engine.steps import CenterCrop  # noqa: E402
from trtdet.engine.store import store_folder  # noqa: E402
from trtdet.errors import BackendError  # noqa: E402

GEOMETRY = Geometry.of(CenterCrop(SIDE, SIDE))
TENSORS, OTHERS = ["stem_relu", "sum1_relu"], ["layer2.0.conv2"]


@pytest.fixture
def graph(tmp_path) -> Path:
    onnx.save(residual_net(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return draw_set(folder, size=40, gate_size=0).of("calibration")


def watched(graph, images, stop_after=None):
    """A pass; with `stop_after` it is killed once so many images were seen."""
    counts = []

    def on_image(count):
        counts.append(count)
        if count == stop_after:
            raise KeyboardInterrupt

    key = range_key(graph, GEOMETRY, images, TENSORS, OTHERS, "mse")
    return observe(graph, GEOMETRY, None, images, TENSORS, OTHERS, key, on_image), counts


def test_a_pass_that_was_killed_goes_on_and_comes_to_the_same(graph, images, monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        watched(graph, images, stop_after=20)
    resumed, counts = watched(graph, images)
    assert counts == list(range(17, 41))  # what was saved last is not seen again
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "another"))
    whole, counts = watched(graph, images)
    assert (counts[0], whole.images, resumed.images) == (1, 40, 40)
    assert whole.largest == resumed.largest
    for name in TENSORS:
        ours, theirs = resumed.histograms[name], whole.histograms[name]
        assert ours.counts.tobytes() == theirs.counts.tobytes()
        assert (ours.limit, ours.largest) == (theirs.limit, theirs.largest)


def test_a_finished_pass_is_not_repeated_for_another_method(graph, images):
    watched(graph, images)
    seen, counts = watched(graph, images)
    assert counts == []
    by_max = choose_ranges(seen, range_key(graph, GEOMETRY, images, TENSORS, OTHERS, "max"), "max")
    assert by_max.limits == {name: each.largest for name, each in seen.histograms.items()}


def test_what_is_seen_is_what_the_graph_computes(graph, images):
    seen, _ = watched(graph, images)
    session = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(graph))
    largest = dict.fromkeys([*TENSORS, *OTHERS], 0.0)
    for image in images:
        given = {"image": image.views(GEOMETRY)}
        for name, tensor in zip(largest, session.run(list(largest), given), strict=True):
            largest[name] = max(largest[name], float(np.abs(tensor).max()))
    for name in TENSORS:
        assert seen.histograms[name].largest == pytest.approx(largest[name], rel=1e-5)
        assert seen.histograms[name].counts.sum() == 40 * 16 * SIDE * SIDE
    assert seen.largest[OTHERS[0]] == pytest.approx(largest[OTHERS[0]], rel=1e-5)


def test_a_key_names_what_changed(graph, images):
    key = range_key(graph, GEOMETRY, images, TENSORS, OTHERS, "mse")
    assert key.changed_parts(key) == []
    other = range_key(graph, Geometry.of(CenterCrop(8, 8)), images[1:], TENSORS[:1], OTHERS, "max")
    assert key.changed_parts(other) == ["geometry", "images", "tensors", "method"]
    assert replace(key, method="max").digest == key.digest
    assert replace(key, images="").digest != key.digest
    graph.write_bytes(graph.read_bytes() + b"\0")
    changed = range_key(graph, GEOMETRY, images, TENSORS, OTHERS, "mse")
    assert key.changed_parts(changed) == ["graph"]


def test_ranges_read_back(graph, images, tmp_path):
    seen, _ = watched(graph, images)
    key = range_key(graph, GEOMETRY, images, TENSORS, OTHERS, "mse")
    ranges = choose_ranges(seen, key, "mse")
    write_ranges(ranges, tmp_path)
    assert read_ranges(tmp_path) is None  # of no bundle
    record = {"schema": SCHEMA, "hashes": {RANGES: sha256_file(tmp_path / RANGES)}}
    (tmp_path / "bundle.json").write_text(json.dumps(record))
    assert read_ranges(tmp_path) == ranges
    text = (tmp_path / RANGES).read_text()
    (tmp_path / RANGES).write_text(text.replace(": 1", ": 9"))
    assert read_ranges(tmp_path) is None  # edited


def test_a_damaged_state_is_begun_anew(graph, images):
    watched(graph, images)
    (state,) = (store_folder() / "calibration").glob("*.npz")
    state.write_bytes(state.read_bytes()[:100])
    _, counts = watched(graph, images)
    assert counts[0] == 1


def test_a_tensor_that_is_not_there_is_told(graph, images):
    key = range_key(graph, GEOMETRY, images, ["swirl"], [], "mse")
    with pytest.raises(BackendError, match=r"OpenVINO does not show swirl"):
        observe(graph, GEOMETRY, None, images, ["swirl"], [], key, print)
