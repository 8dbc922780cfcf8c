"""What the gate saw is judged again at another decision."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trtdet.calibration.gate import Limits
from trtdet.calibration.judged import Judged, judged_again, read_judged, write_judged
from trtdet.engine.bundle import GATE
from trtdet.engine.decision import AS_IT_IS, Decision
from trtdet.engine.digest import sha256_file

IMAGES = 300


@pytest.fixture
def bundle(tmp_path: Path):
    """Logits from 1 to 3, which the engine gets wrong around 2 and nowhere else."""
    reference = np.linspace(1, 3, IMAGES, dtype=np.float32)[:, None]
    engine = reference + np.where(np.abs(reference - 2) < 0.04, 2 * (2 - reference), 0)
    labels = np.arange(IMAGES) % 2
    names = [f"{index:064}" for index in range(IMAGES)]
    write_judged(Judged(names, reference, engine.astype(np.float32), labels), tmp_path)
    report = {"verdict": "passed", "limits": asdict(Limits()), "compared": {"fp16": {}}}
    return SimpleNamespace(
        path=tmp_path, hashes={GATE: sha256_file(tmp_path / GATE)}, outputs=("logit",),
        decision=AS_IT_IS, precision="int8", precision_report=report,
    )  # fmt: skip


def test_flips_are_counted_at_the_new_decision(bundle):
    before = judged_again(bundle)
    assert before["verdict"] == "passed"
    assert before["compared"]["int8"]["logit"]["flips"]["value"] == 0
    bundle.decision = Decision(1.0, -2.0)
    after = judged_again(bundle)
    assert after["verdict"].startswith("beyond its limits: 4.0% ")
    assert set(after["compared"]) == {"int8"}
    assert after["limits"] == asdict(Limits())


def test_what_was_compared_is_read_as_it_was_written(bundle):
    judged = read_judged(bundle)
    assert judged is not None
    assert judged.images[1] == f"{1:064}"
    assert judged.labels is not None
    assert judged.labels.tolist() == [index % 2 for index in range(IMAGES)]
    write_judged(replace(judged, labels=None), bundle.path)
    bundle.hashes[GATE] = sha256_file(bundle.path / GATE)
    again = read_judged(bundle)
    assert again is not None
    assert again.labels is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", None])
def test_an_altered_record_is_not_believed(bundle, content):
    path = bundle.path / GATE
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert read_judged(bundle) is None
    assert judged_again(bundle) is bundle.precision_report
    bundle.hashes[GATE] = content is not None and sha256_file(path)
    assert read_judged(bundle) is None
