from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from trtdet.engine.geometry import (
    CenterCrop,
    CenterSquare,
    Stretch,
    apply_geometry,
    geometry_from_json,
    geometry_to_json,
)
from trtdet.errors import BundleError

SIDES = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def run(geometry, rgb: np.ndarray) -> np.ndarray:
    out = np.full((geometry.height, geometry.width, 3), 77, np.uint8)  # as a reused slot is
    apply_geometry(geometry, rgb, out)
    return out


def torchvision_center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The rule of torchvision's CenterCrop on a Pillow image, by Pillow's own pad and crop."""
    w, h = image.size
    if width > w or height > h:
        left, right = ((width - w) // 2, (width - w + 1) // 2) if width > w else (0, 0)
        top, bottom = ((height - h) // 2, (height - h + 1) // 2) if height > h else (0, 0)
        image = ImageOps.expand(image, (left, top, right, bottom), fill=0)
        w, h = image.size
        if (w, h) == (width, height):
            return image
    top, left = round((h - height) / 2.0), round((w - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=300, deadline=None)
def test_center_crop_equals_the_papers_code(h, w, height, width):
    rgb = noise(h, w)
    expected = torchvision_center_crop(Image.fromarray(rgb), height, width)
    assert np.array_equal(run(CenterCrop(height, width), rgb), np.asarray(expected))


def test_center_crop_rounds_halves_to_even():
    rgb = np.arange(7 * 7 * 3, dtype=np.uint8).reshape(7, 7, 3)
    # (7 - 4) / 2 = 1.5 rounds to 2; (7 - 2) / 2 = 2.5 rounds to 2 as well
    assert np.array_equal(run(CenterCrop(4, 2), rgb), rgb[2:6, 2:4])


def test_the_odd_padding_pixel_goes_right_and_below():
    out = run(CenterCrop(4, 4), np.full((1, 1, 3), 255, np.uint8))
    assert np.argwhere(out[..., 0]).tolist() == [[1, 1]]


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "bicubic", "lanczos"]))
@settings(max_examples=300, deadline=None)
def test_stretch_equals_pillow(h, w, height, width, name):
    rgb = noise(h, w)
    pillow = Image.fromarray(rgb).resize((width, height), Image.Resampling[name.upper()])
    assert np.array_equal(run(Stretch(height, width, name), rgb), np.asarray(pillow))


@given(SIDES, SIDES, SIDES)
@settings(max_examples=300, deadline=None)
def test_center_square_is_the_cups_crop_from_the_middle(h, w, side):
    rgb = noise(h, w)
    cut = min(h, w)
    top, left = (h - cut) // 2, (w - cut) // 2
    name = "LANCZOS" if cut > side else "BICUBIC"
    square = Image.fromarray(rgb).crop((left, top, left + cut, top + cut))
    expected = square.resize((side, side), Image.Resampling[name])
    assert np.array_equal(run(CenterSquare(side, side), rgb), np.asarray(expected))


@pytest.mark.parametrize(
    "geometry", [CenterCrop(256, 224), Stretch(256, 256, "bicubic"), CenterSquare(200, 200)]
)
def test_the_record_reads_back(geometry):
    assert geometry_from_json(geometry_to_json(geometry)) == geometry


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "spiral"},
        {"kind": "stretch", "side": 3},
        {"kind": "center_square", "height": 3, "width": 4},
    ],
)
def test_an_unknown_record_is_refused(record):
    with pytest.raises(BundleError, match="update trtdet"):
        geometry_from_json(record)
