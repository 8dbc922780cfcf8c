"""`trtdet calibrate`: sets and decisions, as a user makes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import read_rows, run_trtdet, write_rows


@pytest.fixture
def labelled(tmp_path) -> Path:
    """Sixty files: smooth ones are called synthetic."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    lines = ["filename,label"]
    for index in range(60):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        if index % 2:
            small = Image.fromarray(pixels[:8, :8])
            pixels = np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
        lines.append(f"{index:02}.png,{index % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_set_is_made_and_read(labelled, tmp_path):
    (labelled / "30.png").write_bytes(b"no image")
    done = run_trtdet("calibrate", "set", labelled / "labels.csv", "--size", "40", "--gate", "10",
                      "--out", tmp_path / "set.json")  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "set.json")
    assert "passed over" in done.stderr
    assert "40 to calibrate on and 10 to judge by" in done.stderr
    images = json.loads((tmp_path / "set.json").read_text())["images"]
    assert sum(each["label"] for each in images) == 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone.csv",), "cannot read gone.csv"),
        (("{}/labels.csv", "--out", "set.txt"), "--out set.txt must end in .json"),
        (("{}", "--size", "0"), "0 is not in the range"),
    ],
)
def test_wrong_sets_are_told(labelled, tmp_path, arguments, message):
    given = [each.format(labelled) for each in arguments]
    done = run_trtdet("calibrate", "set", *given, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


class TestDecision:
    @pytest.fixture
    def bundle(self, small_bundle, labelled, tmp_path) -> Path:
        """A bundle of one's own; labels follow its logits, as they would a trained one's."""
        mine = shutil.copytree(small_bundle, tmp_path / "mine")
        table = labelled / "labels.csv"
        lines = table.read_text().splitlines()[1:]
        names = [line.split(",")[0] for line in lines]
        logits = self.scores(mine, labelled)
        noisy = logits + np.random.default_rng(0).normal(0, 0.3 * logits.std(), len(logits))
        labels = (noisy > np.quantile(noisy, 0.4)).astype(int)
        rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        table.write_text("\n".join(["filename,label", *rows]) + "\n")
        return mine

    @staticmethod
    def scores(bundle: Path, labelled: Path, *options: str) -> np.ndarray:
        names = sorted(path.name for path in labelled.glob("*.png"))
        write_rows(labelled / "in.csv", names)
        run_trtdet("score", "--engine", bundle, *options, labelled / "in.csv", labelled / "o.csv")
        return np.array([float(row[1]) for row in read_rows(labelled / "o.csv")[1:]])

    @pytest.mark.parametrize("method", ["shift", "platt"])
    def test_a_fit_moves_the_decision_and_undo_takes_it_back(self, bundle, labelled, method):
        before = self.scores(bundle, labelled)
        record = (bundle / "bundle.json").read_bytes()
        labels = labelled / "labels.csv"
        said = run_trtdet("calibrate", "decision", bundle, labels, "--method", method).stderr
        assert "balanced accuracy" in said
        assert "cross-validated" in said
        after = self.scores(bundle, labelled)
        decision = json.loads((bundle / "bundle.json").read_text())["decision"]
        np.testing.assert_allclose(after, decision["scale"] * before + decision["shift"], rtol=1e-5)
        assert (np.argsort(after) == np.argsort(before)).all()
        truth = np.array([int(line[1]) for line in read_rows(labels)[1:]])
        assert ((after > 0) == truth).mean() > 0.8
        np.testing.assert_array_equal(self.scores(bundle, labelled, "--raw"), before)
        run_trtdet("calibrate", "decision", bundle, "--undo")
        assert (bundle / "bundle.json").read_bytes() == record

    def test_fits_are_undone_one_by_one(self, bundle, labelled):
        labels, records = labelled / "labels.csv", []
        for method in ("shift", "platt"):
            records.append((bundle / "bundle.json").read_bytes())
            run_trtdet("calibrate", "decision", bundle, labels, "--method", method)
        for record in reversed(records):
            run_trtdet("calibrate", "decision", bundle, "--undo")
            assert (bundle / "bundle.json").read_bytes() == record
        done = run_trtdet("calibrate", "decision", bundle, "--undo", check=False)
        assert (done.returncode, "no fitted decision to undo" in done.stderr) == (2, True)

    def test_an_edited_decision_is_not_undone(self, bundle, labelled):
        run_trtdet("calibrate", "decision", bundle, labelled / "labels.csv")
        record = json.loads((bundle / "bundle.json").read_text())
        record["decision_record"]["replaced"]["shift"] = 3.0
        (bundle / "bundle.json").write_text(json.dumps(record))
        done = run_trtdet("calibrate", "decision", bundle, "--undo", check=False)
        assert "was edited by hand" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("starter", "{}/labels.csv"), "the starter belongs to the package"),
            (("{bundle}",), "give LABELS.CSV to fit a decision, or --undo"),
            (("{bundle}", "{}/labels.csv", "--undo"), "give LABELS.CSV to fit a decision, or"),
            (("nobody", "{}/labels.csv"), "no engine 'nobody'"),
        ],
    )
    def test_wrong_uses_are_told(self, bundle, labelled, arguments, message):
        given = [each.format(labelled, bundle=bundle) for each in arguments]
        done = run_trtdet("calibrate", "decision", *given, check=False)
        assert done.returncode == 2
        assert message in done.stderr
