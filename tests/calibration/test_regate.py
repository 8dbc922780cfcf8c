"""The gate, run again on the engine that was compiled for a machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtdet.calibration.draw import draw_set
from trtdet.calibration.gate import Limits
from trtdet.calibration.images import CalibrationSet, write_set
from trtdet.calibration.judged import Judged, write_judged
from trtdet.calibration.regate import gate_images, regate
from trtdet.engine.backends import choose_backend, infer, open_session
from trtdet.engine.bundle import GATE, Bundle, open_bundle
from trtdet.engine.digest import sha256_file
from trtdet.errors import InputError, PrecisionError

IMAGES = 40


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[CalibrationSet, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    for index in range(IMAGES + 32):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 20, 3), np.uint8)
        image = Image.fromarray(pixels).resize((100, 120), Image.Resampling.BICUBIC)
        image.save(folder / f"{index}.png")
    chosen = draw_set(folder, size=32, gate_size=IMAGES)
    write_set(chosen, folder / "set.json")
    return chosen, folder / "set.json"


@pytest.fixture(scope="module")
def session(small_bundle):
    backend, _ = choose_backend("openvino")
    opened, _drift = open_session(backend, open_bundle(small_bundle))
    yield opened
    opened.close()


@pytest.fixture
def bundle(small_bundle, drawn, session, tmp_path) -> Bundle:
    """As an INT8 build leaves it, judged on the drawn images."""
    chosen, _ = drawn
    own = open_bundle(small_bundle)
    images = chosen.of("gate")
    logits = infer(session, [each.views(own.geometry) for each in images])
    names = [each.sha256 for each in images]
    write_judged(Judged(names, logits, logits, None), tmp_path)
    report = {
        "verdict": "passed", "gpu": "unverified on a GPU", "limits": asdict(Limits()),
        "images": {"generated": False}, "compared": {"int8": {}},
    }  # fmt: skip
    return replace(
        own, path=tmp_path, precision="int8", precision_report=report,
        hashes={**own.hashes, GATE: sha256_file(tmp_path / GATE)},
    )  # fmt: skip


def test_an_engine_like_the_network_passes_and_says_where(bundle, drawn, session):
    images = gate_images(bundle, drawn[1])
    assert images is not None
    assert len(images) == IMAGES
    report = regate(bundle, session, images).precision_report
    assert report["gpu"] == f"not gated: too few images on {session.name}"
    row = report["compared"][f"int8 on {session.name}"]["logit"]
    assert row["largest"] == 0
    assert "int8" in report["compared"]


def test_an_engine_that_is_off_is_refused(bundle, drawn, session, monkeypatch):
    images = gate_images(bundle, drawn[1])
    assert images is not None
    logits = session.logits
    monkeypatch.setattr(session, "logits", lambda slot: logits(slot) * np.float32(2.0))
    with pytest.raises(PrecisionError, match=r"is not near enough: .*deviations"):
        regate(bundle, session, images)


def test_images_must_be_the_very_ones(bundle, drawn, tmp_path):
    chosen, manifest = drawn
    assert gate_images(bundle, None) is None
    other = CalibrationSet(tuple(chosen.images[:-1]))
    write_set(other, tmp_path / "other.json")
    with pytest.raises(InputError, match=f"of the {IMAGES} images that .* was judged on"):
        gate_images(bundle, tmp_path / "other.json")
    (bundle.path / GATE).unlink()
    assert gate_images(bundle, manifest) is None
