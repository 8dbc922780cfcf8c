"""Verifying: a sound engine passes, and each thing that can be wrong is found and named."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trtdet.benchmarks import verify as module
from trtdet.benchmarks import verify_bits
from trtdet.benchmarks.pictures import given_pictures, mixed_pictures
from trtdet.benchmarks.verify import Request, check_decoders, check_gate, verify
from trtdet.benchmarks.verify_bits import check_bits
from trtdet.calibration.judged import Judged, write_judged
from trtdet.engine.backends import choose_backend, open_session
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.digest import sha256_file
from trtdet.engine.openvino import OpenVinoSession
from trtdet.errors import DriftError, InputError


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Path]:
    return mixed_pictures(tmp_path_factory.mktemp("mixed"), 9)


def verified(folder: Path, pictures: list[Path]):
    backend, _ = choose_backend("openvino")
    return verify(Request(open_bundle(folder), backend, pictures), say=lambda _line: None)


def found(certificate) -> dict:
    return {check.name: check for check in certificate.checks}


def test_a_sound_engine_is_verified(small_bundle, mixed):
    certificate = verified(small_bundle, mixed)
    assert certificate.verdict == "verified"
    checks = found(certificate)
    assert list(checks) == ["probes", "same bits", "decoders"]
    assert checks["probes"].values["compared"]["logit"]["flips"]["value"] == 0
    assert checks["probes"].values["compared"]["logit"]["rank_correlation"] == 1.0
    assert checks["same bits"].values["scored"] == 9
    assert len(checks["same bits"].values["ways"]) == 4
    assert checks["decoders"].values["by_opencv"] == 7  # all but the CMYK JPEG and the GIF


def test_a_detector_of_native_resolution_is_verified(built, small_pictures):
    folder = built("npr", "progan-4class", geometry="native", name="native")
    certificate = verified(folder, small_pictures)
    assert certificate.verdict == "verified"
    assert "1 slot, 1 stream" in found(certificate)["same bits"].values["ways"][-1]


def test_a_score_that_depends_on_its_place_in_the_batch_is_found(small_bundle, mixed, monkeypatch):
    sound = OpenVinoSession.logits

    def unsound(self, slot):
        logits = sound(self, slot).copy()
        logits[1:] = np.nextafter(logits[1:], np.float32(np.inf))  # one bit, not in the first place
        return logits

    monkeypatch.setattr(OpenVinoSession, "logits", unsound)
    certificate = verified(small_bundle, mixed)
    assert certificate.failed == ["same bits"]
    check = found(certificate)["same bits"]
    (way, rows), *others = check.values["differing"].items()
    assert "batches of 7" in way
    assert not others
    assert 1 <= len(rows) < 9
    assert rows[0] in check.found


def test_scores_that_differ_are_named_with_both_values():
    one, other = np.float32([1.5]).tobytes(), np.float32([-2]).tobytes()
    pictures = [Path("a.jpg"), Path("b.jpg")]
    check = check_bits(pictures, {"once": [one, None], "twice": [one, other]}, {})
    assert check.passed is False
    assert check.found == "twice: 1 differ, b.jpg (no score, -2.0)"
    check = check_bits(pictures, {"once": [one, None]}, {"twice": "it drifts"})
    assert check.passed is False
    assert check.found == "twice: it drifts"


def test_an_engine_that_opens_in_one_batch_alone_has_a_certificate(
    small_bundle, mixed, monkeypatch
):
    sound = verify_bits.open_engine

    def unsound(backend, bundle, **options):
        if options.get("batch") == 7:
            raise DriftError("the logits drift in batches of 7")
        return sound(backend, bundle, **options)

    monkeypatch.setattr(verify_bits, "open_engine", unsound)
    certificate = verified(small_bundle, mixed)
    assert certificate.failed == ["same bits"]
    assert found(certificate)["same bits"].found.endswith("the logits drift in batches of 7")


def test_images_that_are_none_verify_nothing(small_bundle, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"none of 1 images can be scored, for .*broken\.jpg: "):
        verified(small_bundle, [broken])


def test_pixels_that_are_not_pillows_are_named(mixed, monkeypatch):
    sound = module.decode_plain

    def unsound(data, *, max_pixels):
        rgb = sound(data, max_pixels=max_pixels)
        if rgb is not None and data.startswith(b"\x89PNG"):
            rgb = rgb.copy()
            rgb[0, 0, 0] ^= 1
        return rgb

    assert check_decoders(mixed).passed
    monkeypatch.setattr(module, "decode_plain", unsound)
    check = check_decoders(mixed)
    assert check.passed is False
    assert check.values["differing"]
    assert all(name.endswith(".png") for name in check.values["differing"])


def fewer_bits(bundle: Bundle, folder: Path, engine: np.ndarray, reference: np.ndarray) -> Bundle:
    """A bundle that was judged, with these logits."""
    write_judged(
        Judged([str(each) for each in range(len(engine))], reference, engine, None), folder
    )
    report = {"limits": {"flips": 0.01, "p99": 0.25, "auc_drop": 0.005}, "verdict": "passed"}
    hashes = {**bundle.hashes, "gate.npz": sha256_file(folder / "gate.npz")}
    return replace(bundle, path=folder, hashes=hashes, precision_report=report)


def test_the_gate_is_scored_again_and_has_a_floor(small_bundle, tmp_path):
    reference = np.random.default_rng(3).normal(size=(300, 1)).astype(np.float32)
    engine = reference + np.float32(0.001)
    bundle = fewer_bits(open_bundle(small_bundle), tmp_path, engine, reference)
    check = check_gate(bundle, engine, 0.95, "here")
    assert check.passed
    assert check.values["same_bits_as_built"] == 300
    assert check.values["compared"]["logit"]["rank_correlation"] > 0.99
    moved = engine.copy()
    moved[:150] = engine[:150][::-1]
    check = check_gate(bundle, moved, 0.95, "here")
    assert check.passed is False
    assert "of the decisions change (limit 1.0%)" in check.found
    assert "(floor 0.95)" in check.found
    assert check.values["same_bits_as_built"] == 150


def test_a_gate_that_is_lost_or_was_altered_is_no_verdict(small_bundle, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(small_bundle, folder)
    logits = np.zeros((300, 1), np.float32)
    sound = fewer_bits(open_bundle(folder), folder, logits, logits)
    session, _drift = open_session(choose_backend("openvino")[0], sound)
    with closing(session):
        request = Request(sound, choose_backend("openvino")[0], [])
        write_judged(Judged(["other"] * 300, logits, logits, None), folder)
        altered = module._check_gate(request, sound, session)
        (folder / "gate.npz").unlink()
        lost = module._check_gate(request, sound, session)
    assert altered == lost
    assert lost.passed is False
    assert "gate.npz is missing, or another than the build's" in lost.found


def test_a_certificate_is_json_and_text(small_bundle, mixed):
    certificate = verified(small_bundle, mixed[:3])
    record = json.loads(json.dumps(certificate.to_json()))
    assert record["verdict"] == "verified"
    assert record["versions"]["openvino"]
    assert [check["name"] for check in record["checks"]] == ["probes", "same bits", "decoders"]
    text = str(certificate)
    assert text.startswith("certificate  small (tiny-ladeda, fp32) on openvino ")
    assert max(map(len, text.splitlines())) <= 100


def test_pictures_are_spread_over_what_is_given(mixed, tmp_path):
    table, empty = tmp_path / "in.csv", tmp_path / "empty"
    empty.mkdir()
    table.write_text("filename\n" + "".join(f"{path}\n" for path in mixed))
    assert given_pictures(mixed[0].parent, 3) == [mixed[0], mixed[3], mixed[6]]
    assert given_pictures(table, 100) == mixed
    with pytest.raises(InputError, match="there is no image"):
        given_pictures(empty, 3)
