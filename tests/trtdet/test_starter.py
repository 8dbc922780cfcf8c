"""The detector in the box: it scores as installed, says what it is, and is what its card says."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.engine.bundle import load_card, load_probes, open_bundle
from trtdet.engine.store import default_bundle, find_bundle, set_default, starter_bundle


def test_it_is_a_small_and_whole_bundle():
    bundle = open_bundle(starter_bundle())
    assert bundle.name == "starter"
    files = [path for path in starter_bundle().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    assert {path.name for path in files} == {
        "bundle.json", "model.onnx", "probes.npz", "card.json",
    }  # fmt: skip


def test_its_probes_are_the_drawn_ones():
    pytest.importorskip("torch", reason="probes are made by trtdet[build]")
    from trtdet.build.probes import make_probes

    assert np.array_equal(load_probes(starter_bundle()).images, make_probes(200, 200))


def test_it_is_the_default_until_there_is_another(small_bundle):
    assert default_bundle() == starter_bundle() == find_bundle("starter")
    set_default(small_bundle)
    assert default_bundle() == small_bundle
    assert find_bundle("starter") == starter_bundle()


def test_score_works_as_installed_and_says_what_scored(pictures, tmp_path):
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    done = run_trtdet("score", table, tmp_path / "out.csv")
    assert "engine starter that comes with trtdet (fp32)" in done.stderr
    rows = read_rows(tmp_path / "out.csv")[1:]
    assert len(rows) == len(pictures)
    assert np.isfinite([float(row[1]) for row in rows]).all()


def test_the_card_says_what_a_user_must_know():
    shown = run_trtdet("inspect", "starter").stdout
    for needed in (
        "public repositories under mixed licences, for research",
        "Do not use it",
        "unseen sources",
        "balanced accuracy",
        "JPEG quality 75",
        "resized to 50 %",
        "by generator",
    ):
        assert needed in re.sub(r"\s+", " ", shown), needed
    record = json.loads(run_trtdet("inspect", "--json", "starter").stdout)
    assert record["card"] == load_card(open_bundle(starter_bundle()))


@pytest.mark.full
def test_its_card_is_what_it_reaches(shared, tmp_path):
    """A sample of the validation images through the command line, against the card's interval."""
    from trtdet.calibration.labels import read_labels
    from trtdet.calibration.metrics import roc_auc

    images = [each for each in read_labels(shared / "cup/labels.csv") if each.split == "val"]
    table = write_rows(tmp_path / "in.csv", [str(each.path) for each in images])
    run_trtdet("score", "--engine", "starter", table, tmp_path / "out.csv")
    scores = np.array([float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]])
    labels = np.array([each.label for each in images])
    stated = load_card(open_bundle(starter_bundle()))["results"]["validation"]["AUC"]
    assert roc_auc(labels, scores) == pytest.approx(stated[0], abs=2e-3)
    assert stated[1] < stated[0] < stated[2]


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_demo_makes_a_page_that_needs_nothing_else(tmp_path):
    done = run_trtdet("demo", "--out", tmp_path / "demo")
    page = Path(done.stdout.strip())
    assert page == tmp_path / "demo/index.html"
    found = _Page()
    found.feed(page.read_text(encoding="utf-8"))
    assert len(found.links) == 12
    assert all(link.startswith("data:image/jpeg;base64,") for link in found.links)
    logits = [float(row[1]) for row in read_rows(tmp_path / "demo/output.csv")[1:]]
    assert all(f"{logit:+.2f}" in page.read_text() for logit in logits)
    for row in read_rows(tmp_path / "demo/input.csv")[1:]:
        Image.open(tmp_path / "demo" / row[0]).verify()
