"""The module that makes the README's accuracy tables, as it is run."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from PIL import Image


def test_every_set_gets_a_record_and_a_page_and_the_table_its_rows(small_bundle, tmp_path):
    data = tmp_path / "pictures"
    data.mkdir()
    rows = ["filename,label,split"]
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (70, 64, 3), np.uint8)
        name = f"{index}.{'png' if index % 4 else 'bmp'}"
        Image.fromarray(pixels).save(data / name)
        rows.append(f"{name},{index % 2},{'val' if index < 4 else 'train'}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "trtdet.benchmarks.accuracy", "--out", tmp_path]
    command += ["--data", data / "labels.csv", "--data", f"{data}/labels.csv:val"]
    command += ["--robustness-images", "0", small_bundle]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[2].startswith("| small | pictures/labels.csv, all | 4 / 4 | ")
    assert "| small | pictures/labels.csv, png alone | 2 / 4 | " in done.stdout
    assert "| small | pictures/labels.csv, split val, all | 2 / 2 | " in done.stdout
    for name, images in (("pictures", 8), ("pictures-val", 4)):
        assert json.loads((tmp_path / f"accuracy-{name}.json").read_text())["images"] == images
        assert "<h1>What small reaches on" in (tmp_path / f"accuracy-{name}.html").read_text()
