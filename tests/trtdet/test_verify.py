"""`trtdet verify` as a user meets it."""

from __future__ import annotations

import json
import shutil

import numpy as np

from tests.conftest import run_trtdet, write_rows
from trtdet.engine.bundle import Probes, load_probes, save_probes
from trtdet.engine.digest import sha256_file


def test_the_starter_is_verified():
    done = run_trtdet("verify", "--count", "5", "starter")
    assert done.stdout.splitlines()[0].startswith("certificate  starter (cooccurrence, fp32)")
    assert done.stdout.splitlines()[2] == "verdict      verified"
    assert "rank correlation 1.0000" in " ".join(done.stdout.split())
    assert "drifts" not in done.stdout


def test_images_of_ones_own_bad_ones_too(small_bundle, pictures, tmp_path):
    names = [*(str(path) for path in pictures[:3]), "missing.jpg"]
    table = write_rows(tmp_path / "in.csv", names)
    done = run_trtdet("verify", "--json", "--images", table, small_bundle)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["same bits"]["values"]["images"] == 4
    assert checks["same bits"]["values"]["scored"] == 3
    assert checks["decoders"]["values"]["refused"] == 1


def test_an_engine_that_drifts_is_refused_with_code_6(small_bundle, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(small_bundle, bad)
    probes = load_probes(bad)
    save_probes(Probes(probes.images, probes.logits + np.float32(0.5)), bad)
    record = json.loads((bad / "bundle.json").read_text())
    record["hashes"]["probes.npz"] = sha256_file(bad / "probes.npz")
    (bad / "bundle.json").write_text(json.dumps(record))
    done = run_trtdet("verify", "--count", "3", bad, check=False)
    assert done.returncode == 6
    assert done.stdout.splitlines()[2] == "verdict      NOT verified: probes"
    assert "drifts by 0.5" in done.stdout
    assert "Error: small is not what it was built to be here (probes)" in done.stderr
    assert "Traceback" not in done.stderr
