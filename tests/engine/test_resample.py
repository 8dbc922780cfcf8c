"""What the kernels are told to do: Pillow's weights and order, and which pixels are wanted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtdet.engine import coefficients as module
from trtdet.engine import resample
from trtdet.engine.coefficients import coefficients, pillow_order, resample_axis, union
from trtdet.engine.geometry import NATIVE, Geometry, apply_geometry
from trtdet.engine.resample import LONGEST_SIDE, gpu_recipe
from trtdet.engine.steps import (
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
from trtdet.errors import ImageError

FILTERS = st.sampled_from(["bilinear", "bicubic", "lanczos"])


def sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x = x * math.pi
    return math.sin(x) / x


def kernel(name: str, x: float) -> float:
    """Pillow's three filters, one number at a time."""
    if name == "lanczos":
        return sinc(x) * sinc(x / 3) if -3.0 <= x < 3.0 else 0.0
    x = -x if x < 0.0 else x
    if name == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def weights_of(size: int, out: int, name: str, output: int) -> tuple[int, list[int]]:
    """Pillow's loop for one output: the first pixel, and the weights from there on."""
    scale = size / out
    stretch = max(scale, 1.0)
    support = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}[name] * stretch
    center = (output + 0.5) * scale
    first = max(0, int(center - support + 0.5))
    stop = min(size, int(center + support + 0.5))
    weights, total = [], 0.0
    for pixel in range(first, stop):
        weights.append(kernel(name, (pixel - center + 0.5) * (1.0 / stretch)))
        total += weights[-1]
    if total != 0.0:
        weights = [weight / total for weight in weights]
    return first, [int(math.copysign(0.5, w) + w * (1 << 22)) for w in weights]


@given(st.integers(1, 5000), st.integers(1, 300), FILTERS, st.data())
@settings(max_examples=200, deadline=None)
def test_the_weights_are_those_of_pillows_loop(size, out, name, data):
    outputs = data.draw(st.lists(st.integers(0, out - 1), min_size=1, max_size=4, unique=True))
    first, count, weights = coefficients(size, out, name, np.array(sorted(outputs)))
    for column, output in enumerate(sorted(outputs)):
        expected_first, expected = weights_of(size, out, name, output)
        assert first[column] == expected_first
        assert weights[: count[column], column].tolist() == expected
        assert not weights[count[column] :, column].any()


@given(st.integers(1, 3000), st.integers(1, 200), FILTERS, st.data())
@settings(max_examples=200, deadline=None)
def test_some_outputs_are_those_of_the_whole_axis(size, out, name, data):
    edges = sorted(data.draw(st.sets(st.integers(0, out), min_size=2, max_size=6)))
    spans = tuple(zip(edges[::2], edges[1::2], strict=False))
    some = resample_axis(size, out, name, spans)
    whole = resample_axis(size, out, name, ((0, out),))
    pixels = np.concatenate([np.arange(*band) for band in some.bands])
    assert some.source == len(pixels)
    assert np.all(np.diff(pixels) > 0)
    wanted = np.concatenate([np.arange(*span) for span in spans])
    assert some.outputs == len(wanted)
    assert [some.index(output) for output in wanted] == list(range(len(wanted)))
    if size == out:
        assert some.table is None
        assert np.array_equal(pixels, wanted)
        return
    read = set()
    for column, output in enumerate(wanted):
        first, count, *weights = some.table[:, column]
        whole_first, whole_count, *whole_weights = whole.table[:, output]
        assert weights[:count] == whole_weights[:whole_count]
        places = pixels[first : first + count]
        assert places.tolist() == list(range(whole_first, whole_first + whole_count))
        read |= set(places.tolist())
    assert read == set(pixels.tolist())  # nothing is uploaded for nobody


def test_the_table_of_an_axis_is_made_once():
    assert resample_axis(700, 224, "bicubic", ((3, 9),)) is resample_axis(
        700, 224, "bicubic", ((3, 9),)
    )


def test_union():
    assert union([(5, 7), (0, 2), (2, 3), (6, 6), (9, 12), (10, 11)]) == ((0, 3), (5, 7), (9, 12))


class TestPillowsOrder:
    def test_the_installed_pillow_is_understood(self):
        assert pillow_order() is not None

    @pytest.mark.parametrize("name", ["_until_12_1", "_in_12_2", "_since_13"])
    def test_either_order_is_recognised(self, monkeypatch, name):
        order = getattr(module, name)

        def pillow(rgb, height, width, resampling):
            first = 0 if order(*rgb.shape[:2], height, width) else 1
            for axis in (first, 1 - first):
                rgb = module._resize_along(axis, rgb, (height, width)[axis], resampling)
            return rgb

        monkeypatch.setattr(module, "resize_pillow", pillow)
        assert pillow_order.__wrapped__() is order

    def test_a_pillow_with_other_bytes_resizes_alone(self, monkeypatch):
        resize = module.resize_pillow
        monkeypatch.setattr(module, "resize_pillow", lambda *given: resize(*given) ^ 1)
        monkeypatch.setattr(resample, "pillow_order", pillow_order.__wrapped__)
        assert gpu_recipe(Geometry.of(Stretch(8, 8))) is None


@pytest.mark.parametrize(
    "steps",
    [
        (Stretch(8, 9, "bicubic"),),
        (CenterSquare(8, 8),),
        (ShortSide(9), CenterCrop(8, 8)),
        (ShortSide(9), TenCrop(8, 8)),
        (Stretch(9, 9), CenterCrop(8, 8)),
        (Stretch(9, 9), TenCrop(8, 8)),
    ],
    ids=str,
)
def test_what_the_kernels_can_do(steps):
    assert gpu_recipe(Geometry.of(*steps)) is not None


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (ShortSide(9),),
        (CenterCrop(8, 8),),
        (TenCrop(8, 8),),
        (Trim(2),),
        (ReflectPad(8, 8), CenterCrop(8, 8)),
        (Repeat(8, 8), Stretch(8, 8)),
        (Trim(2), Stretch(8, 8)),
        (Stretch(9, 9), Stretch(8, 8)),
        (Stretch(9, 9), Trim(2), CenterCrop(8, 8)),
        (OpenCvResize(8, 8, "area"),),
        (OpenCvResize(9, 9, "area"), CenterCrop(8, 8)),
        (ShortSide(9), TensorFlowResize(8, 8, "nearest")),
    ],
    ids=str,
)
def test_what_the_host_does(steps):
    assert gpu_recipe(Geometry(steps)) is None


def plan(height: int, width: int, *steps):
    recipe = gpu_recipe(Geometry.of(*steps))
    assert recipe is not None
    return recipe.plan(height, width)


class TestPlan:
    def test_of_a_panorama_only_the_middle_is_read(self):
        wide = plan(500, 5000, ShortSide(250), CenterCrop(200, 200))
        assert (wide.rows.spans, wide.columns.spans) == (((25, 225),), ((1150, 1350),))
        assert wide.columns.bands == ((2299, 2701),)  # a bilinear filter reaches 2 pixels further
        assert [each.shape for each in wide.passes] == [(402, 200), (200, 200)]

    def test_ten_crops_of_a_thread_read_three_ends_of_it(self):
        thread = plan(60_000, 1, ShortSide(256), TenCrop(224, 224))
        assert thread.rows.source < 10
        assert len(thread.rows.spans) == 3
        assert (thread.rows.outputs, thread.columns.outputs) == (3 * 224, 256)
        assert len(thread.views) == 10

    def test_an_axis_that_keeps_its_length_has_no_pass(self):
        assert plan(8, 9, Stretch(8, 9)).passes == ()
        (only,) = plan(8, 90, Stretch(8, 9)).passes
        assert not only.of_rows
        (only,) = plan(80, 9, Stretch(8, 9)).passes
        assert only.of_rows

    def test_a_square_has_the_two_passes_of_its_one_axis(self):
        both = plan(30, 30, Stretch(8, 8)).passes
        assert both[0].axis is both[1].axis
        assert {each.of_rows for each in both} == {True, False}

    @pytest.mark.parametrize("height_width", [(3, 9), (9, 3)])
    def test_an_image_too_small_for_its_crops_is_refused_as_on_the_host(self, height_width):
        geometry = Geometry.of(Stretch(*height_width), TenCrop(4, 4))
        with pytest.raises(ImageError) as on_host:
            apply_geometry(geometry, np.zeros((20, 20, 3), np.uint8))
        with pytest.raises(ImageError) as refusal:
            gpu_recipe(geometry).plan(20, 20)
        assert str(refusal.value) == str(on_host.value)

    def test_a_side_beyond_any_table_is_left_to_the_host(self):
        assert plan(1, LONGEST_SIDE, Stretch(8, 8)) is not None
        assert plan(1, LONGEST_SIDE + 1, Stretch(8, 8)) is None
        assert plan(LONGEST_SIDE + 1, 1, Stretch(8, 8)) is None

    def test_native_resolution_has_no_recipe(self):
        assert gpu_recipe(NATIVE) is None
