"""Calibration sets: what is drawn, and that a manifest is what it says."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtdet.calibration.draw import draw_set
from trtdet.calibration.generated import draw_image, generated_set
from trtdet.calibration.images import read_set, write_set
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb
from trtdet.errors import InputError


def picture(path: Path, seed: int, side: int = 24, **options) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """60 files in three formats and two sizes, one of them twice, two that do not decode."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(60):
        suffix = ("png", "jpg", "webp")[0 if index < 50 else 1 + index % 2]
        picture(images / f"{index:02}.{suffix}", index, 24 if index < 55 else 200)
    shutil.copy(images / "00.png", images / "again.png")
    Image.open(images / "01.png").save(images / "other file.bmp")
    (images / "broken.jpg").write_bytes((images / "51.webp").read_bytes()[:40])
    (images / "notes.txt").write_text("no image")
    return images


def labels_of(folder: Path, **columns) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".webp"))
    lines = ["filename,label,image"]
    lines += [f"{path.name},{index % 3 == 0:d},{columns.get('image', path.name)}"
              for index, path in enumerate(files)]  # fmt: skip
    target = folder / "labels.csv"
    target.write_text("\n".join(lines) + "\n")
    return target


def test_no_picture_is_drawn_twice_and_no_bad_file(folder):
    skipped = {}
    chosen = draw_set(folder, on_skip=lambda path, reason: skipped.update({path.name: reason}))
    names = [each.path.name for each in chosen.images]
    assert len(names) == len(set(names)) == 60
    assert len({"00.png", "again.png"} & set(names)) == 1
    assert len({"01.png", "other file.bmp"} & set(names)) == 1
    assert "broken.jpg" in skipped
    assert len(skipped) == 3


def test_rare_kinds_have_their_turn(folder):
    chosen = draw_set(folder, size=34, gate_size=0)
    kinds = Counter((each.path.suffix, each.path.stat().st_size > 5000) for each in chosen.images)
    assert {suffix for suffix, _ in kinds} >= {".png", ".jpg", ".webp"}
    assert sum(count for (suffix, _), count in kinds.items() if suffix != ".png") >= 9


def test_classes_alternate_and_labels_are_kept(folder):
    labels = labels_of(folder)
    chosen = draw_set(labels, size=32, gate_size=6)
    assert Counter(each.label for each in chosen.images[:30]) == {0: 15, 1: 15}
    expected = dict(line.split(",")[:2] for line in labels.read_text().splitlines()[1:])
    for each in chosen.images:
        assert each.label == int(expected[each.path.name])


def test_files_of_one_picture_count_once(folder):
    labels = labels_of(folder, image="the same")
    with pytest.raises(InputError, match="1 usable images, and calibration needs 32 or more"):
        draw_set(labels)


def test_the_gate_has_other_images_and_comes_first_where_there_are_few(folder):
    chosen = draw_set(folder)
    calibration, gate = chosen.of("calibration"), chosen.of("gate")
    assert (len(calibration), len(gate)) == (32, 28)
    assert not {each.path for each in calibration} & {each.path for each in gate}


def test_no_class_or_kind_is_on_one_side_only(folder):
    """A rare class is drawn to its end before a common one: the roles are spread all the same."""
    names = sorted(path.name for path in folder.glob("*.*") if path.suffix in (".png", ".webp"))
    lines = [f"{name},{int(name in names[::5])}" for name in names]
    (folder / "rare.csv").write_text("\n".join(["filename,label", *lines]) + "\n")
    chosen = draw_set(folder / "rare.csv", size=32, gate_size=18)
    for role in ("calibration", "gate"):
        share = np.mean([each.label for each in chosen.of(role)])
        assert 0.1 < share < 0.35
        assert {each.path.suffix for each in chosen.of(role)} == {".png", ".webp"}


def test_labels_may_be_missing_or_of_one_class(folder):
    names = sorted(path.name for path in folder.glob("*.png"))[:40]
    lines = [f"{name},{'1' if index % 2 else ''}" for index, name in enumerate(names)]
    (folder / "some.csv").write_text("\n".join(["filename,label", *lines]) + "\n")
    assert {each.label for each in draw_set(folder / "some.csv").images} == {None, 1}
    (folder / "some.csv").write_text(f"filename,label\n{names[0]},2\n")
    with pytest.raises(InputError, match=r"line 2: the label '2' is neither"):
        draw_set(folder / "some.csv")


def test_pictures_without_labels_stay_together_too(folder):
    names = sorted(path.name for path in folder.glob("*.png"))
    lines = [f"{name},{index // 2}" for index, name in enumerate(names)]
    (folder / "list.csv").write_text("\n".join(["filename,image", *lines]) + "\n")
    with pytest.raises(InputError, match=r"has 2\d usable images"):
        draw_set(folder / "list.csv")


def test_a_set_too_small_to_calibrate_on_is_refused_at_once(folder):
    with pytest.raises(InputError, match="20 images are too few: calibration needs 32"):
        draw_set(folder, size=20)


def test_a_seed_gives_the_same_set_and_another_seed_another(folder):
    first, again, other = (draw_set(folder, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.sha256 != other.sha256


def test_a_list_without_labels_will_do(folder):
    lines = ["filename", *(path.name for path in sorted(folder.glob("*.png")))]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    assert all(each.label is None for each in draw_set(folder / "list.csv").images)


class TestManifest:
    @pytest.fixture
    def manifest(self, folder) -> Path:
        write_set(draw_set(folder), folder / "set.json")
        return folder / "set.json"

    def test_reads_back_and_survives_a_move(self, manifest, tmp_path):
        chosen = read_set(manifest)
        moved = shutil.copytree(manifest.parent, tmp_path / "moved")
        again = read_set(moved / "set.json")
        assert again.sha256 == chosen.sha256
        assert {each.path.parent for each in again.images} == {moved}

    def test_a_changed_file_is_told(self, manifest):
        picture(manifest.parent / "07.png", 999)
        with pytest.raises(InputError, match=r"07\.png changed since the set was made"):
            read_set(manifest)

    def test_a_missing_file_is_told(self, manifest):
        (manifest.parent / "07.png").unlink()
        with pytest.raises(InputError, match=r"07\.png cannot be read .*make the calibration set"):
            read_set(manifest)

    @pytest.mark.parametrize("change", [{"role": "calibration"}, {"label": 1}])
    def test_an_edit_is_told(self, manifest, change):
        record = json.loads(manifest.read_text())
        record["images"][-1].update(change)
        manifest.write_text(json.dumps(record))
        with pytest.raises(InputError, match="was edited by hand"):
            read_set(manifest)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 9, "images": []}'])
    def test_what_is_no_manifest_is_told(self, manifest, text):
        manifest.write_text(text)
        with pytest.raises(InputError, match=r"is no calibration set .*trtdet calibrate set"):
            read_set(manifest)


class TestGenerated:
    def test_an_index_gives_one_picture(self):
        assert draw_image(5) == draw_image(5)
        assert draw_image(5) != draw_image(6)

    @pytest.mark.parametrize("index", range(0, 40, 7))
    def test_pictures_are_jpegs_with_the_spectrum_of_photographs(self, index):
        rgb = decode_rgb(draw_image(index), max_pixels=DEFAULT_MAX_PIXELS)
        assert 200 <= min(rgb.shape[:2]) <= max(rgb.shape[:2]) <= 640
        side = min(rgb.shape[:2])
        grey = rgb[:side, :side].mean(2)
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
        bands = np.geomspace(0.02, 0.2, 8)
        middle = [power[(frequency >= low) & (frequency < high)].mean()
                  for low, high in pairwise(bands)]  # fmt: skip
        slope = np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(middle), 1)[0]
        assert -4.5 < slope < -1.2  # of power; photographs lie near -2

    def test_the_set_is_drawn_once_and_again_where_it_is_damaged(self, monkeypatch):
        drawn = []
        monkeypatch.setattr("trtdet.calibration.generated.SIZE", 4)
        monkeypatch.setattr("trtdet.calibration.generated.GATE_SIZE", 2)
        monkeypatch.setattr(
            "trtdet.calibration.generated.draw_image",
            lambda index: drawn.append(index) or draw_image(index),
        )
        first = generated_set()
        assert generated_set() == first
        assert (first.generated, len(first.of("gate")), drawn) == (True, 2, [0, 1, 2, 3, 4, 5])
        first.images[0].path.unlink()
        assert generated_set() == first
        assert len(drawn) == 12
