"""The cup's protocol: its draws by hand, its pixels by Pillow."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import read_rows
from trtdet.calibration.cup_protocol import Draw, apply_protocol, draw_operations, operated
from trtdet.calibration.cup_set import make_cup_set
from trtdet.errors import ImageError, InputError


def save(path: Path, width: int, height: int) -> Path:
    pixels = np.random.default_rng(width * height).integers(0, 256, (9, 9, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


class ByHand(random.Random):
    """Gives what it was told to, and keeps the ranges that it was asked for."""

    def __init__(self, *numbers: int):
        super().__init__()
        self.numbers, self.asked = list(numbers), []

    def randint(self, a: int, b: int) -> int:
        self.asked.append((a, b))
        return self.numbers.pop(0)


@pytest.mark.parametrize(
    ("width", "height", "crops"),
    [
        (640, 480, (300, 480)),  # 480 * 5 // 8
        (160, 3000, (160, 160)),
        (250, 250, (160, 250)),  # 156 is below the least crop
        (5000, 4000, (1280, 2048)),  # 2048 * 5 // 8
        (333, 333, (208, 333)),
    ],
)
def test_the_ranges_and_their_order(width, height, crops):
    rng = ByHand(crops[0], 1, 2, 70)
    draw = draw_operations(rng, width=width, height=height)
    assert draw == Draw(crops[0], 1, 2, 70)
    rest = [(0, width - crops[0]), (0, height - crops[0]), (65, 100)]
    assert rng.asked == [crops, *rest]


def test_the_draws_of_a_seed():
    """Seed 2022, worked through by hand from the generator's bits.

    640 x 480: the crop is 300 to 480, and 8 bits give 136; x is 0 to 204, and 8 bits give 73; y is
    0 to 44, and 6 bits give 28; the quality is 65 to 100, and 6 bits give 34. Then 200 x 300: crop
    160 to 200, 6 bits, 19; x 0 to 21, 5 bits, 18; y 0 to 121, 7 bits, 7; quality, 6 bits, 33.
    """
    bits = random.Random(2022)
    assert [bits.getrandbits(count) for count in (8, 8, 6, 6, 6, 5, 7, 6)] == [
        136, 73, 28, 34, 19, 18, 7, 33
    ]  # fmt: skip
    rng = random.Random(2022)
    assert draw_operations(rng, width=640, height=480) == Draw(300 + 136, 73, 28, 65 + 34)
    assert draw_operations(rng, width=200, height=300) == Draw(160 + 19, 18, 7, 65 + 33)


def test_a_small_image_is_refused_and_takes_no_draw():
    rng = random.Random(0)
    with pytest.raises(ImageError, match="159x500 is too small: the shorter side needs 160"):
        draw_operations(rng, width=159, height=500)
    assert rng.random() == random.Random(0).random()


@pytest.mark.parametrize(
    ("crop", "kind"), [(201, Image.Resampling.LANCZOS), (200, Image.Resampling.BICUBIC)]
)
def test_crops_above_200_are_resized_with_lanczos(crop, kind):
    rgb = np.random.default_rng(1).integers(0, 256, (260, 240, 3), np.uint8)
    expected = Image.fromarray(rgb).crop((7, 9, 7 + crop, 9 + crop)).resize((200, 200), kind)
    assert operated(rgb, Draw(crop, 7, 9, 80)).tobytes() == expected.tobytes()


def test_files_are_pillows_jpegs_and_a_bad_one_costs_its_number(tmp_path):
    sources = [save(tmp_path / "a.png", 300, 200), tmp_path / "gone.png",
               save(tmp_path / "c.png", 100, 400), save(tmp_path / "d.png", 256, 256)]  # fmt: skip
    made = list(apply_protocol(sources, tmp_path, seed=5))
    assert [each.name for each in made] == [f"img{n:06d}.jpg" for n in range(4)]
    assert [each.reason for each in made] == [
        "", "file not found", "100x400 is too small: the shorter side needs 160 pixels", ""
    ]  # fmt: skip
    rng = random.Random(5)
    for index in (0, 3):
        with Image.open(sources[index]) as image:
            draw = draw_operations(rng, width=image.width, height=image.height)
            expected = io.BytesIO()
            square = operated(np.asarray(image), draw)
            square.save(expected, "JPEG", quality=draw.quality)
        assert made[index].draw == draw
        assert (tmp_path / made[index].name).read_bytes() == expected.getvalue()


def test_drawn_images_come_from_the_same_generator(tmp_path):
    """The organisers' `maximg`: the list is shuffled by the generator that then draws the crops."""
    sources = [save(tmp_path / f"{n}.png", 200, 200) for n in range(5)]
    rng = random.Random(3)
    order = list(range(5))
    rng.shuffle(order)
    made = list(apply_protocol(sources, tmp_path, seed=3, count=2))
    assert [each.source for each in made] == order[:2]
    assert [each.draw for each in made] == [
        draw_operations(rng, width=200, height=200) for _ in range(2)
    ]


class TestSet:
    def test_a_folder_is_taken_as_the_organisers_take_it(self, tmp_path):
        for name in ("b.png", "A.JPG", ".hidden.png", "c.webp", "sub/d.png"):
            save(tmp_path / "in" / name, 180, 170)
        made = make_cup_set(tmp_path / "in", tmp_path / "out", seed=1)
        assert (made.images, made.failed, made.labelled) == (2, {}, False)
        rows = read_rows(tmp_path / "out/metainfo.csv")
        assert rows[0] == ["filename", "src", "cropsize", "x1", "y1", "qf"]
        rng = random.Random(1)
        for number, (row, name) in enumerate(zip(rows[1:], ("A.JPG", "b.png"), strict=True)):
            draw = draw_operations(rng, width=180, height=170)
            drawn = (draw.crop, draw.x, draw.y, draw.quality)
            assert row == [f"img{number:06d}.jpg", str(tmp_path / "in" / name), *map(str, drawn)]
            with Image.open(tmp_path / "out" / row[0]) as image:
                assert image.size == (200, 200)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "img000000.jpg", "img000001.jpg", "metainfo.csv"
        }  # fmt: skip

    def test_a_csv_keeps_its_columns_and_bad_rows_are_listed(self, tmp_path):
        save(tmp_path / "a.png", 180, 170)
        (tmp_path / "bad, one.png").write_bytes(b"no image")
        save(tmp_path / "c.png", 180, 170)
        table = tmp_path / "labels.csv"
        table.write_text('filename,label,generator\na.png,0,\n"bad, one.png",1,X\nc.png,1,"Y, 2"\n')
        made = make_cup_set(table, tmp_path / "out", seed=1)
        assert read_rows(tmp_path / "out/labels.csv") == [
            ["filename", "label", "generator", "image"],
            ["img000000.jpg", "0", "", "a.png"],
            ["img000002.jpg", "1", "Y, 2", "c.png"],
        ]
        reason = "not an image that Pillow can read"
        assert made.failed == {str(tmp_path / "bad, one.png"): reason}
        assert read_rows(tmp_path / "out/errors.csv")[1:] == [
            [str(tmp_path / "bad, one.png"), reason]
        ]

    def test_a_data_set_keeps_its_labels(self, tmp_path):
        for name in ("progan/0_real/1.png", "progan/1_fake/2.png", "beside.png"):
            save(tmp_path / "in" / name, 180, 170)
        make_cup_set(tmp_path / "in", tmp_path / "out", seed=1)
        rows = read_rows(tmp_path / "out/labels.csv")
        assert rows[0] == ["filename", "label", "generator", "source", "split", "part", "image"]
        assert [row[:3] for row in rows[1:]] == [
            ["img000000.jpg", "0", "progan"], ["img000001.jpg", "1", "progan"]
        ]  # fmt: skip

    def test_nothing_is_overwritten_and_nothing_is_left_half_done(self, tmp_path):
        save(tmp_path / "in/a.png", 100, 100)
        with pytest.raises(InputError, match=r"can be used \(100x100 is too small"):
            make_cup_set(tmp_path / "in", tmp_path / "out", seed=0)
        assert not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="is there already"):
            make_cup_set(tmp_path / "in", tmp_path / "in", seed=0)
