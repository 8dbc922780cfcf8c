from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trtdet.calibration.distortions import FAMILIES, file_generator

LEVELS = [
    pytest.param(level, id=f"{family.name} {level.name}")
    for family in FAMILIES
    for level in family.levels
    if level.distort is not None
]


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((121, 80), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_changes_the_image_and_gives_bytes(level, rgb):
    before = rgb.copy()
    made = level.distort(rgb, file_generator(0, "a.png"))
    again = level.distort(rgb, file_generator(0, "a.png"))
    assert made.dtype == np.uint8
    assert made.ndim == 3
    np.testing.assert_array_equal(made, again)
    np.testing.assert_array_equal(rgb, before)
    assert made.shape != rgb.shape or (made != rgb).any()


def family(name: str) -> dict:
    (found,) = (each for each in FAMILIES if each.name == name)
    return {level.name: level.distort for level in found.levels}


@pytest.mark.parametrize(("name", "codec"), [("JPEG", "JPEG"), ("WebP", "WEBP")])
def test_codecs_are_pillows_at_their_quality(rgb, name, codec):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, codec, quality=60)
    expected = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(family(name)["60"](rgb, None), expected)


def test_each_family_is_stronger_at_its_end(rgb):
    for name, weak, strong in (("JPEG", "95", "30"), ("WebP", "95", "30"), ("Blur", "0.5", "3")):
        first, last = (family(name)[level](rgb, None).astype(float) for level in (weak, strong))
        assert np.abs(first - rgb).mean() < np.abs(last - rgb).mean() * 0.7


def test_sizes_are_rounded_shares(rgb):
    assert family("Resizing")["150"](rgb, None).shape == (120, 182, 3)
    assert family("Resizing")["25"](rgb, None).shape == (20, 30, 3)
    cropped = family("Centre crop")["50"](rgb, None)
    np.testing.assert_array_equal(cropped, rgb[20:60, 30:90])


def test_noise_is_a_files_own_and_has_its_strength():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = family("Noise")["8"]
    first = noise(grey, file_generator(0, "a.png"))
    assert first.astype(float).std() == pytest.approx(8.0, rel=0.02)
    assert (first != noise(grey, file_generator(0, "b.png"))).any()
    assert (first != noise(grey, file_generator(1, "a.png"))).any()


def test_the_smallest_image_survives_every_level():
    tiny = np.zeros((1, 1, 3), np.uint8)
    for each in LEVELS:
        assert each.values[0].distort(tiny, file_generator(0, "")).size >= 3
