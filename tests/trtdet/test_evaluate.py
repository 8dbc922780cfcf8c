"""`trtdet evaluate` and `trtdet cup-protocol`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.calibration.metrics import roc_auc

HOSTILE = "<script>alert(1)<script>.png"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A folder in ForenSynths' layout, with a hostile name and a file that is no image."""
    root = tmp_path_factory.mktemp("forensynths")
    for index in range(16):
        folder = root / ("progan/cat", "biggan")[index % 2] / ("0_real", "1_fake")[index // 8]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (170, 180, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}{HOSTILE.replace('/', '-')}")
    (root / "biggan/1_fake/broken.png").write_bytes(b"no image")
    return root


def test_a_tree_is_measured_and_a_bad_file_is_counted(small_bundle, tree, tmp_path):
    done = run_trtdet("evaluate", small_bundle, tree, "--json", "--robustness-images", "0",
                      "--smallest-group", "1", "--rounds", "100", check=False)  # fmt: skip
    assert done.returncode == 3
    assert "could not score 1 images\n  biggan/1_fake/broken.png: not an image" in done.stderr
    record = json.loads(done.stdout)
    (result,) = record["results"]
    assert result["failures"] == {"biggan/1_fake/broken.png": "not an image that Pillow can read"}
    names = [(group["kind"], group["name"]) for group in result["groups"]]
    assert names == [("generator", "biggan"), ("generator", "progan")]

    # The numbers are those of the command that scores files.
    files = sorted(str(path) for path in tree.rglob("*.png") if path.name != "broken.png")
    run_trtdet("score", "--engine", small_bundle, write_rows(tmp_path / "in.csv", files),
               tmp_path / "out.csv")  # fmt: skip
    logits = np.array([float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]])
    labels = np.array(["1_fake" in name for name in files], int)
    found = result["overall"]["metrics"]["AUC"][0]
    assert found == pytest.approx(roc_auc(labels, logits), abs=1e-6)
    assert (result["overall"]["real"], result["overall"]["synthetic"]) == (8, 8)


def test_a_listed_file_that_is_not_there_costs_its_row(small_bundle, tree, tmp_path):
    labels = tmp_path / "labels.csv"
    files = [path for path in sorted(tree.rglob("*.png")) if path.name != "broken.png"]
    rows = [f"{path},{int('1_fake' in str(path))}" for path in (*files, tmp_path / "none.png")]
    labels.write_text("\n".join(["filename,label", *rows]) + "\n")
    done = run_trtdet("evaluate", small_bundle, labels, "--robustness-images", "0",
                      "--rounds", "100", check=False)  # fmt: skip
    assert done.returncode == 3
    assert "could not score 1 images\n  none.png: file not found" in done.stderr


def test_two_bundles_stand_side_by_side_on_a_page(small_bundle, tree, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = ["filename,label,part,generator"]
    for index, path in enumerate(sorted(tree.rglob(f"*{HOSTILE}"))):
        rows.append(f"{path},{int('1_fake' in str(path))},{index % 2 + 1},\udcff")
    labels.write_text("\n".join(rows) + "\n", errors="surrogateescape")
    page = tmp_path / "page.html"
    done = run_trtdet("evaluate", small_bundle, "starter", labels, "--html", page,
                      "--robustness-images", "2", "--rounds", "100")  # fmt: skip
    assert done.stdout.startswith("8 real and 8 synthetic images: ")
    heads = ("balanced accuracy", "cup score", "p (DeLong, Holm)")
    for expected in ("small", "starter", *heads, "\\udcff"):
        assert expected in done.stdout
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("<figure") == 1 + 2 + 2 + 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("starter", "gone.csv"), "cannot read gone.csv"),
        (("starter", "{tree}", "--split", "val"), "has no images of the split 'val'"),
        (("nothing", "{tree}"), "nothing"),
        (("starter",), "Missing argument"),
        (("starter", "{tree}", "--robustness-images", "1"), "an image of each class"),
        (
            ("starter", "{tree}", "--html", "no/folder/page.html"),
            "No such file or directory (no/folder/page.html)",
        ),
    ],
)
def test_wrong_input_is_told_before_anything_is_scored(tree, tmp_path, arguments, message):
    given = [each.format(tree=tree) for each in arguments]
    done = run_trtdet("evaluate", *given, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_the_cups_protocol_makes_a_set_that_can_be_measured(tree, tmp_path):
    done = run_trtdet("cup-protocol", tree, tmp_path / "cup", "--seed", "1", check=False)
    assert done.returncode == 3
    assert "broken.png: not an image that Pillow can read" in done.stderr
    assert "16 images, 1 could not be used" in done.stderr
    labels = Path(done.stdout.strip())
    assert labels == tmp_path / "cup/labels.csv"
    assert len(read_rows(labels)) == 17
    again = run_trtdet("cup-protocol", tree, tmp_path / "again", "--seed", "1", check=False)
    assert again.returncode == 3
    for file in sorted((tmp_path / "cup").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    measured = run_trtdet("evaluate", "starter", labels, "--robustness-images", "0", "--json")
    assert json.loads(measured.stdout)["images"] == 16
