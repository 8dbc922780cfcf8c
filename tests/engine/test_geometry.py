from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from trtdet.engine.geometry import (
    NATIVE,
    Geometry,
    apply_geometry,
    geometry_from_json,
    geometry_to_json,
)
from trtdet.engine.steps import (
    KINDS,
    CenterCrop,
    CenterSquare,
    OpenCvResize,
    ReflectPad,
    Repeat,
    ShortSide,
    Stretch,
    TenCrop,
    TensorFlowResize,
    Trim,
)
from trtdet.errors import BundleError, ImageError

SIDES = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def run(step, rgb: np.ndarray) -> np.ndarray:
    """The one view of an image after one step."""
    before = rgb.copy()
    (view,) = apply_geometry(Geometry.of(step), rgb)
    assert np.array_equal(rgb, before)  # the next lane of an ensemble sees the same image
    return view


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


class TestCenterCrop:
    @given(SIDES, SIDES, SIDES, SIDES)
    @settings(max_examples=300, deadline=None)
    def test_equals_the_papers_code(self, h, w, height, width):
        rgb = noise(h, w)
        expected = torchvision_center_crop(Image.fromarray(rgb), height, width)
        assert np.array_equal(run(CenterCrop(height, width), rgb), np.asarray(expected))

    def test_rounds_halves_to_even(self):
        rgb = np.arange(7 * 7 * 3, dtype=np.uint8).reshape(7, 7, 3)
        # (7 - 4) / 2 = 1.5 rounds to 2; (7 - 2) / 2 = 2.5 rounds to 2 as well
        assert np.array_equal(run(CenterCrop(4, 2), rgb), rgb[2:6, 2:4])

    def test_or_down(self):
        rgb = np.arange(7 * 7 * 3, dtype=np.uint8).reshape(7, 7, 3)
        assert np.array_equal(run(CenterCrop(4, 2, halves="down"), rgb), rgb[1:5, 2:4])

    def test_the_odd_padding_pixel_goes_right_and_below(self):
        out = run(CenterCrop(4, 4), np.full((1, 1, 3), 255, np.uint8))
        assert np.argwhere(out[..., 0]).tolist() == [[1, 1]]


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "bicubic", "lanczos"]))
@settings(max_examples=300, deadline=None)
def test_stretch_equals_pillow(h, w, height, width, name):
    rgb = noise(h, w)
    pillow = Image.fromarray(rgb).resize((width, height), Image.Resampling[name.upper()])
    assert np.array_equal(run(Stretch(height, width, name), rgb), np.asarray(pillow))


class TestShortSide:
    @pytest.mark.parametrize(
        ("size_wh", "expected_wh"),
        [
            ((517, 333), (347, 224)),
            ((333, 517), (224, 347)),
            ((224, 224), (224, 224)),
            ((100, 100), (224, 224)),
            ((1, 3), (224, 672)),
        ],
    )
    def test_the_longer_side_is_cut_to_a_whole_number(self, size_wh, expected_wh):
        width, height = size_wh
        assert run(ShortSide(224), noise(height, width)).shape == (*expected_wh[::-1], 3)

    @given(SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "bicubic", "lanczos"]))
    @settings(deadline=None)
    def test_equals_torchvisions_rule_on_pillow(self, h, w, size, name):
        short, long = min(h, w), max(h, w)
        scaled = int(size * long / short)
        width, height = (size, scaled) if w <= h else (scaled, size)
        rgb = noise(h, w)
        pillow = Image.fromarray(rgb).resize((width, height), Image.Resampling[name.upper()])
        assert np.array_equal(run(ShortSide(size, name), rgb), np.asarray(pillow))


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


def mirrored(size: int, want: int) -> list[int]:
    """albumentations' PadIfNeeded along one axis: which pixel each place shows, by walking.

    A walker starts at the first pixel and turns at the ends, without standing on them twice.
    """
    missing = max(want - size, 0)
    before = int(missing / 2.0)

    def seen_from_the_first(steps: int) -> int:
        if size == 1:
            return 0
        position, direction = 0, 1
        for _ in range(abs(steps)):
            if not 0 <= position + direction < size:
                direction = -direction
            position += direction
        return position

    return [seen_from_the_first(index - before) for index in range(size + missing)]


class TestReflectPad:
    @given(SIDES, SIDES, SIDES, SIDES)
    @example(1, 1, 9, 8)
    @example(2, 1, 9, 8)
    @example(3, 2, 60, 61)
    @settings(max_examples=200, deadline=None)
    def test_then_center_crop_is_albumentations(self, h, w, height, width):
        rgb = noise(h, w)
        padded = rgb[np.ix_(mirrored(h, height), mirrored(w, width))]
        assert np.array_equal(run(ReflectPad(height, width), rgb), padded)

        geometry = Geometry.of(ReflectPad(height, width), CenterCrop(height, width, halves="down"))
        top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
        (view,) = apply_geometry(geometry, rgb)
        assert np.array_equal(view, padded[top : top + height, left : left + width])

    @given(SIDES, SIDES, SIDES, SIDES)
    @settings(max_examples=200, deadline=None)
    def test_equals_numpy_where_numpy_is_defined(self, h, w, height, width):
        pads = []
        for size, want in ((h, height), (w, width)):
            missing = max(want - size, 0)
            pads.append((missing // 2, missing - missing // 2))
        expected = np.pad(noise(h, w), [*pads, (0, 0)], mode="reflect")
        assert np.array_equal(run(ReflectPad(height, width), noise(h, w)), expected)


@given(SIDES, SIDES, SIDES, SIDES)
@settings(deadline=None)
def test_repeat_is_genimages_rule(h, w, height, width):
    rgb = noise(h, w)
    out = run(Repeat(height, width), rgb)
    rows, columns = math.ceil(height / h), math.ceil(width / w)
    assert out.shape == (rows * h, columns * w, 3)
    for row in range(rows):
        for column in range(columns):
            part = out[row * h : (row + 1) * h, column * w : (column + 1) * w]
            assert np.array_equal(part, rgb)


class TestTrim:
    @given(SIDES, SIDES, st.integers(1, 9))
    @settings(deadline=None)
    def test_the_last_rows_and_columns_go(self, h, w, multiple):
        rgb = noise(h, w)
        if min(h, w) < multiple:
            with pytest.raises(ImageError, match=f"{w}x{h} is too small for this detector"):
                run(Trim(multiple), rgb)
            return
        height, width = h // multiple * multiple, w // multiple * multiple
        assert np.array_equal(run(Trim(multiple), rgb), rgb[:height, :width])

    def test_pairs_by_default(self):
        assert run(Trim(), noise(7, 4)).shape == (6, 4, 3)


@given(
    SIDES, SIDES, SIDES, SIDES, st.sampled_from(["nearest", "linear", "cubic", "area", "lanczos4"])
)
@settings(max_examples=200, deadline=None)
def test_opencv_resize_equals_opencv(h, w, height, width, name):
    rgb = noise(h, w)
    code = getattr(cv2, f"INTER_{name.upper()}")
    expected = cv2.resize(rgb, (width, height), interpolation=code)
    assert np.array_equal(run(OpenCvResize(height, width, name), rgb), expected)


def keys_cubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def tensorflow_axis(size: int, out: int, method: str) -> np.ndarray:
    """One axis of tf.image.resize without antialias as a matrix [out, size], in float64."""
    matrix = np.zeros((out, size))
    for row in range(out):
        position = (row + 0.5) * size / out - 0.5
        first = math.floor(position)
        if method == "bilinear":
            for index in (first, first + 1):
                share = 1 - abs(position - index)
                matrix[row, min(max(index, 0), size - 1)] += share
            continue
        inside = [index for index in range(first - 1, first + 3) if 0 <= index < size]
        shares = [keys_cubic(position - index) for index in inside]
        matrix[row, inside] = np.array(shares) / sum(shares)
    return matrix


class TestTensorFlowResize:
    @given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "bicubic"]))
    @settings(max_examples=150, deadline=None)
    def test_is_the_sum_it_should_be(self, h, w, height, width, method):
        rgb = noise(h, w)
        got = run(TensorFlowResize(height, width, method), rgb)
        assert got.dtype == np.float32
        rows, columns = tensorflow_axis(h, height, method), tensorflow_axis(w, width, method)
        expected = np.einsum("yh,xw,hwc->yxc", rows, columns, rgb.astype(np.float64))
        # The cubic's table has 1024 steps to a pixel: a level or less between two of them.
        np.testing.assert_allclose(got, expected, atol=0.01 if method == "bilinear" else 1.0)

    def test_nothing_is_rounded_clipped_or_antialiased(self):
        rgb = np.zeros((1, 8, 3), np.uint8)
        rgb[:, 4:] = 255
        wide = run(TensorFlowResize(1, 16, "bicubic"), rgb)[0, :, 0]
        assert wide.min() < -1
        assert wide.max() > 256
        narrow = run(
            TensorFlowResize(1, 2, "bilinear"), np.tile(np.uint8([[[0]], [[9]]]), (1, 8, 3))
        )
        assert narrow.shape == (1, 2, 3)
        assert np.all(narrow == 4.5)

    @given(SIDES, SIDES)
    @settings(deadline=None)
    def test_the_nearest_and_the_same_size(self, h, w):
        rgb = noise(h, w)
        for method in ("nearest", "bilinear", "bicubic"):
            assert np.array_equal(run(TensorFlowResize(h, w, method), rgb), rgb.astype(np.float32))
        twice = run(TensorFlowResize(2 * h, 3 * w, "nearest"), rgb)
        assert np.array_equal(twice, rgb.repeat(2, 0).repeat(3, 1))


class TestTenCrop:
    def test_the_order_is_torchvisions(self):
        rgb = noise(9, 12)
        views = apply_geometry(Geometry.of(TenCrop(4, 5)), rgb)
        assert views.shape == (10, 4, 5, 3)
        # (9 - 4) / 2 = 2.5 and (12 - 5) / 2 = 3.5: to even
        places = [(0, 0), (0, 7), (5, 0), (5, 7), (2, 4)]
        for image, first in ((rgb, 0), (rgb[:, ::-1], 5)):
            for view, (top, left) in zip(views[first:], places, strict=False):
                assert np.array_equal(view, image[top : top + 4, left : left + 5])

    def test_an_image_of_that_very_size_is_seen_ten_times(self):
        rgb = noise(4, 5)
        views = apply_geometry(Geometry.of(TenCrop(4, 5)), rgb)
        assert all(np.array_equal(view, rgb) for view in views[:5])
        assert all(np.array_equal(view, rgb[:, ::-1]) for view in views[5:])

    @pytest.mark.parametrize(("h", "w"), [(3, 9), (9, 4)])
    def test_a_smaller_image_is_refused(self, h, w):
        with pytest.raises(ImageError, match=f"{w}x{h} is smaller than the 5x4 that ten crops"):
            apply_geometry(Geometry.of(TenCrop(4, 5)), noise(h, w))


class TestGeometry:
    def test_steps_run_in_order(self):
        rgb = noise(30, 41)
        geometry = Geometry.of(ShortSide(20), CenterCrop(16, 24))
        resized = Image.fromarray(rgb).resize((27, 20), Image.Resampling.BILINEAR)
        expected = np.asarray(torchvision_center_crop(resized, 16, 24))
        assert np.array_equal(apply_geometry(geometry, rgb)[0], expected)
        assert (geometry.fixed_size, geometry.views, geometry.dtype) == ((16, 24), 1, np.uint8)

    def test_what_it_says_of_its_output_is_so(self):
        for geometry in (
            NATIVE,
            Geometry.of(Trim(4)),
            Geometry.of(ReflectPad(50, 60), Trim(2)),
            Geometry.of(Stretch(20, 30)),
            Geometry.of(ShortSide(40), TenCrop(32, 24)),
            Geometry.of(TensorFlowResize(9, 10, "bicubic")),
        ):
            views = apply_geometry(geometry, noise(45, 57))
            assert views.dtype == geometry.dtype
            assert len(views) == geometry.views
            if geometry.height is None:
                assert geometry.width is None
                assert str(geometry).startswith("native resolution")
                with pytest.raises(ValueError, match="no fixed size"):
                    _ = geometry.fixed_size
            else:
                assert views.shape[1:3] == geometry.fixed_size
                assert "native" not in str(geometry)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([TenCrop(4, 4), CenterCrop(4, 4)], "only be the last"),
            ([TensorFlowResize(4, 4, "nearest"), Trim(2)], "only be the last"),
            ([CenterCrop(4, 4), Trim(2)], "changes it again"),
            ([Stretch(4, 4), ShortSide(2)], "changes it again"),
            ([CenterCrop(0, 4)], "whole numbers above 0"),
            ([CenterCrop(4, 4.0)], "whole numbers above 0"),
            ([CenterCrop(True, 4)], "whole numbers above 0"),
            ([CenterCrop(4, "4")], "whole numbers above 0"),
            ([Trim(-2)], "whole numbers above 0"),
        ],
    )
    def test_steps_that_cannot_be(self, steps, message):
        with pytest.raises(ValueError, match=message):
            Geometry.of(*steps)


EVERY_KIND = [
    CenterCrop(256, 224),
    CenterCrop(7, 5, halves="down"),
    TenCrop(32, 24),
    Stretch(256, 256, "bicubic"),
    ShortSide(224, "lanczos"),
    CenterSquare(200, 200),
    ReflectPad(448, 448),
    Repeat(224, 220),
    Trim(2),
    OpenCvResize(20, 30, "lanczos4"),
    TensorFlowResize(20, 30, "bicubic"),
]


class TestRecord:
    def test_every_kind_is_here(self):
        assert {step.kind for step in EVERY_KIND} == set(KINDS)

    @pytest.mark.parametrize("step", EVERY_KIND, ids=str)
    def test_reads_back(self, step):
        geometry = Geometry.of(step)
        text = json.dumps(geometry_to_json(geometry))
        assert geometry_from_json(json.loads(text)) == geometry
        assert str(step) in str(geometry)

    def test_several_steps_and_none_read_back(self):
        for geometry in (NATIVE, Geometry.of(ReflectPad(8, 8), CenterCrop(8, 8, "down"))):
            assert geometry_from_json(geometry_to_json(geometry)) == geometry

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ([{}], "names no kind of step: center_crop, ten_crop"),
            (["stretch"], "names no kind of step"),
            ([{"kind": "spiral"}], "names no kind of step"),
            ([{"kind": "stretch", "side": 3}], "stretch has no side, but height, width, filter"),
            ([{"kind": "stretch", "height": 3}], "stretch needs height, width, filter"),
            ([{"kind": "stretch", "height": 3, "width": 3, "filter": "area"}],
             "filter 'area' is none of bilinear, bicubic, lanczos"),
            ([{"kind": "center_crop", "height": 3, "width": 3, "halves": "up"}],
             "'up' is none of even, down"),
            ([{"kind": "center_crop", "height": "3", "width": 3}], "whole numbers"),
            ([{"kind": "center_crop", "height": None, "width": 3}], "whole numbers"),
            ([{"kind": "center_square", "height": 3, "width": 4}], "equal sides"),
            ([{"kind": "ten_crop", "height": 3, "width": 4}, {"kind": "trim"}], "the last step"),
            ({"kind": "stretch", "height": 3, "width": 3}, "names no kind of step"),
            (None, "not iterable"),
        ],
        ids=str,
    )  # fmt: skip
    def test_an_unknown_one_is_refused_with_what_there_is(self, record, message):
        with pytest.raises(BundleError, match=r"(?s)update trtdet") as refusal:
            geometry_from_json(record)
        assert message in str(refusal.value)
