"""The kernels, on the host, against the geometry that every other backend applies: equal bytes."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.host_kernels import HostDevice
from trtdet.engine import staging as module
from trtdet.engine.cubin import SOURCE
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb
from trtdet.engine.geometry import NATIVE, Geometry, apply_geometry
from trtdet.engine.staging import IMAGE, Staging, staging_bytes, temp_bytes
from trtdet.engine.steps import (  # fmt: skip
    CenterCrop,
    CenterSquare,
    ShortSide,
    Stretch,
    TenCrop,
    TensorFlowResize,
    Trim,
)
from trtdet.errors import ImageError

# One of each kind, small, with odd margins and paddings.
GEOMETRIES = [
    Geometry.of(Stretch(32, 40)),
    Geometry.of(Stretch(33, 41, "bicubic")),
    Geometry.of(Stretch(31, 47, "lanczos")),
    Geometry.of(CenterSquare(40, 40)),
    Geometry.of(ShortSide(37), CenterCrop(32, 30)),
    Geometry.of(ShortSide(36, "bicubic"), CenterCrop(31, 33, "down")),
    Geometry.of(ShortSide(36, "lanczos"), CenterCrop(51, 33)),
    Geometry.of(ShortSide(37, "bicubic"), TenCrop(32, 30)),
    Geometry.of(Stretch(40, 41), CenterCrop(33, 36)),
    Geometry.of(Stretch(40, 41, "lanczos"), CenterCrop(45, 36, "down")),
    Geometry.of(Stretch(40, 43), TenCrop(33, 36)),
    Geometry.of(CenterSquare(40, 40), CenterCrop(21, 50)),
    Geometry.of(CenterSquare(40, 40), TenCrop(33, 36)),
]
ODD_SIZES = [(1, 1), (1, 37), (53, 1), (2, 900), (900, 3), (32, 40), (64, 40), (32, 99), (40, 40)]
SIDES = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures(count: int, largest: int = 500, seed: int = 0) -> list[np.ndarray]:
    """Sizes as often small as large: [h, w, 3] from 1 pixel up."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(0, np.log(largest), (count, 2))).astype(int)
    return [noise(int(height), int(width)) for height, width in sizes]


def expected(geometry: Geometry, images: list[np.ndarray | None]) -> np.ndarray:
    """uint8 [batch * views, H, W, 3]; None is a blank place."""
    blank = np.zeros((geometry.views, *geometry.fixed_size, 3), np.uint8)
    views = [blank if rgb is None else apply_geometry(geometry, rgb) for rgb in images]
    return np.concatenate(views)


class Rig:
    """A staging with its buffer, 4 MiB for each image if not told otherwise, and a device."""

    def __init__(
        self, geometry: Geometry, batch: int, *, size: int | None = None, temp: int = 1 << 24
    ):
        size = staging_bytes(geometry, batch, 4 << 20) if size is None else size
        self.buffer = np.full(size, 0x5A, np.uint8)
        self.staging = Staging(self.buffer, geometry, batch, temp_bytes=temp)
        self._host = HostDevice(geometry, batch, temp)

    def load(self, images: list[np.ndarray]) -> None:
        """One into each place, from the first on."""
        for position, rgb in enumerate(images):
            self.staging.load(position, rgb)

    def run(self, **changes) -> np.ndarray:
        """What the kernels give: uint8 [batch * views, H, W, 3]."""
        return self._host.run(self.buffer, replace(self.staging.seal(), **changes))

    @property
    def images(self) -> np.ndarray:
        """The descriptors [batch]."""
        return self.staging._images


@pytest.fixture
def device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host resizes nothing."""

    def never(*_given):
        raise AssertionError("this was to be resized on the device")

    monkeypatch.setattr(module, "apply_geometry", never)


@pytest.mark.usefixtures("device_alone")
class TestBytes:
    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    def test_equal_those_of_the_host(self, geometry):
        images = [*pictures(16), *(noise(*size) for size in ODD_SIZES)]
        rig = Rig(geometry, len(images))
        rig.load(images)
        assert np.array_equal(rig.run(), expected(geometry, images))

    @given(
        st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3),
        st.sampled_from(["stretch", "short side", "square"]),
        st.sampled_from(["bilinear", "bicubic", "lanczos"]),
        st.tuples(SIDES, SIDES),
        st.none() | st.tuples(SIDES, SIDES, st.sampled_from(["even", "down", "ten"])),
    )
    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_equal_those_of_the_host_whatever_the_sizes(self, sizes, kind, name, new, crop):
        steps = [
            {
                "stretch": Stretch(*new, name),
                "short side": ShortSide(new[0], name),
                "square": CenterSquare(new[0], new[0]),
            }[kind]
        ]
        if crop is None and kind == "short side":
            crop = (*new, "even")
        if crop is not None:
            height, width, halves = crop
            steps.append(
                TenCrop(min(height, *new), min(width, *new))
                if halves == "ten"
                else CenterCrop(height, width, halves)
            )
        geometry = Geometry.of(*steps)
        images = [noise(*size) for size in sizes]
        rig = Rig(geometry, len(images))
        rig.load(images)
        assert np.array_equal(rig.run(), expected(geometry, images))

    @pytest.mark.parametrize(
        "geometry",
        [
            Geometry.of(Stretch(256, 256)),
            Geometry.of(Stretch(256, 256), CenterCrop(224, 224)),
            Geometry.of(CenterSquare(200, 200)),
            Geometry.of(ShortSide(256, "bicubic"), TenCrop(224, 224)),
        ],
        ids=str,
    )
    def test_equal_those_of_the_host_on_real_images(self, geometry, shared: Path):
        paths = [path for path in (shared / "images").iterdir() if path.suffix != ".csv"]
        images = [
            decode_rgb(path.read_bytes(), max_pixels=DEFAULT_MAX_PIXELS)
            for path in sorted(paths)[::8]
        ]
        rig = Rig(geometry, len(images), temp=1 << 27)
        rig.load(images)
        assert np.array_equal(rig.run(), expected(geometry, images))

    @pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 65_500), (65_500, 3)])
    @pytest.mark.parametrize(
        "geometry", [Geometry.of(Stretch(56, 64)), Geometry.of(CenterSquare(64, 64))], ids=str
    )
    def test_of_a_line(self, geometry, size):
        rig = Rig(geometry, 2)
        images = [noise(*size), noise(9, 9)]
        rig.load(images)
        assert np.array_equal(rig.run(), expected(geometry, images))
        assert max(rig.staging.seal().blocks) <= module.MOST_BLOCKS

    def test_of_a_line_that_the_host_could_not_hold(self):
        # Whole it would be 256 x 15,360,000 pixels.
        geometry = Geometry.of(ShortSide(256, "lanczos"), CenterCrop(224, 224))
        rig = Rig(geometry, 1, size=staging_bytes(geometry, 1, 0))
        rig.staging.load(0, np.full((60_000, 1, 3), 77, np.uint8))
        assert np.all(rig.run() == 77)

    def test_do_not_depend_on_the_grid(self, monkeypatch):
        monkeypatch.setattr(module, "MOST_BLOCKS", 3)
        for geometry in GEOMETRIES:
            images = pictures(4, seed=1)
            rig = Rig(geometry, len(images))
            rig.load(images)
            assert max(rig.staging.seal().blocks) == 3
            for threads in (1, 33, 1024):
                assert np.array_equal(rig.run(threads=threads), expected(geometry, images))

    def test_of_a_row_of_a_larger_array(self):
        geometry = GEOMETRIES[0]
        large = noise(90, 120)
        large.setflags(write=False)
        rig = Rig(geometry, 2)
        rig.staging.load(0, large[3:77, 5:60])
        rig.staging.load(1, large[::2, ::-3])
        assert np.array_equal(
            rig.run(), expected(geometry, [large[3:77, 5:60], large[::2, ::-3].copy()])
        )

    def test_from_eight_threads(self):
        geometry = Geometry.of(ShortSide(37, "bicubic"), TenCrop(32, 30))
        images = pictures(48, seed=2)
        rig = Rig(geometry, len(images))
        reference = expected(geometry, images)
        with ThreadPoolExecutor(8) as pool:
            for round_ in range(6):
                order = np.random.default_rng(round_).permutation(len(images))
                list(pool.map(lambda each: rig.staging.load(each, images[each]), order.tolist()))
                assert np.array_equal(rig.run(), reference)
                rig.staging.reset()


class TestPlaces:
    geometry = Geometry.of(ShortSide(37), TenCrop(32, 30))

    def test_are_black_where_nothing_was_put(self):
        rig = Rig(self.geometry, 3)
        assert not rig.run().any()
        image = noise(50, 60)
        rig.staging.load(1, image)
        rig.staging.blank(2)
        assert np.array_equal(rig.run(), expected(self.geometry, [None, image, None]))

    def test_can_be_blanked_after_all(self):
        rig = Rig(self.geometry, 3)
        images = pictures(3)
        rig.load(images)
        rig.staging.blank(1)
        assert np.array_equal(rig.run(), expected(self.geometry, [images[0], None, images[2]]))

    def test_take_images_that_are_prepared_or_one_view_for_all(self):
        rig = Rig(self.geometry, 3)
        views = np.stack([noise(32, 30) ^ each for each in range(10)])
        rig.staging.put(0, views)
        rig.staging.put(1, views[3:4])
        rig.staging.load(2, noise(70, 80))
        output = rig.run().reshape(3, 10, 32, 30, 3)
        assert np.array_equal(output[0], views)
        assert all(np.array_equal(view, views[3]) for view in output[1])
        assert np.array_equal(output[2], apply_geometry(self.geometry, noise(70, 80)))

    @pytest.mark.parametrize(
        "views",
        [
            np.zeros((10, 30, 32, 3), np.uint8),
            np.zeros((2, 32, 30, 3), np.uint8),
            np.zeros((32, 30, 3), np.uint8),
            np.zeros((10, 32, 30, 3), np.float32),
        ],
    )
    def test_refuse_what_is_no_input(self, views):
        with pytest.raises(ValueError, match="is no input of"):
            Rig(self.geometry, 1).staging.put(0, views)

    def test_are_usable_after_an_image_that_cannot_be(self):
        geometry = Geometry.of(Stretch(20, 50), TenCrop(32, 30))
        rig = Rig(geometry, 2, size=staging_bytes(geometry, 2, 0))
        for _again in range(50):
            with pytest.raises(ImageError, match="50x20 is smaller than the 30x32"):
                rig.staging.load(0, noise(60, 60))
        views = np.stack([noise(32, 30)] * 10)
        rig.staging.put(0, views)
        rig.staging.put(1, views)
        assert np.array_equal(rig.run(), np.concatenate([views, views]))

    def test_of_a_batch_that_failed_as_a_whole_are_free_again(self):
        rig = Rig(self.geometry, 2, size=staging_bytes(self.geometry, 2, 0))
        for seed in range(20):
            images = pictures(2, 90, seed)
            rig.load(images)
            assert np.array_equal(rig.run(), expected(self.geometry, images))
            for position in range(2):
                rig.staging.blank(position)
            assert not rig.run().any()

    def test_are_filled_once(self):
        rig = Rig(self.geometry, 1, size=staging_bytes(self.geometry, 1, 0))
        views = np.zeros((10, 32, 30, 3), np.uint8)
        rig.staging.put(0, views)
        with pytest.raises(ValueError, match="place 0 was filled before: reset"):
            rig.staging.put(0, views)
        rig.staging.reset()
        rig.staging.put(0, views)


class TestMemory:
    geometry = Geometry.of(Stretch(32, 40, "bicubic"))

    @pytest.mark.parametrize("spare", [0, 100, 5_000, 50_000, 400_000])
    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    def test_what_has_no_room_is_resized_on_the_host(self, geometry, spare):
        images = pictures(6, seed=3)
        rig = Rig(geometry, 6, size=staging_bytes(geometry, 6, 0) + spare)
        rig.load(images)
        assert rig.staging.seal().upload_bytes <= len(rig.buffer)
        assert np.array_equal(rig.run(), expected(geometry, images))

    @pytest.mark.parametrize("temp", [0, 20_000, 60_000])
    def test_what_has_no_temporary_room_too(self, temp):
        images = pictures(12, seed=4)
        rig = Rig(self.geometry, 12, temp=temp)
        rig.load(images)
        resized = np.count_nonzero(rig.images["first"]["axis"])
        assert (resized == 0) == (temp == 0)
        assert resized < 12
        assert np.array_equal(rig.run(), expected(self.geometry, images))

    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    @pytest.mark.parametrize("sides", [(120, 120), (60, 240), (240, 60)])
    @pytest.mark.usefixtures("device_alone")
    def test_the_sizes_suffice_for_the_images_that_they_are_for(self, geometry, sides):
        image_bytes, tables = 120 * 120 * 3, 20_000
        temp = temp_bytes(geometry, 5, image_bytes)
        rig = Rig(geometry, 5, size=staging_bytes(geometry, 5, image_bytes + tables), temp=temp)
        rig.load([noise(*sides)] * 5)
        rig.staging.seal()

    def test_equal_sizes_share_their_tables(self):
        rig = Rig(self.geometry, 8)
        used = [rig.staging.seal().upload_bytes]
        for position in range(8):
            rig.staging.load(position, noise(100, 200))
            used.append(rig.staging.seal().upload_bytes)
        assert set(np.diff(used[1:])) == {100 * 200 * 3}
        assert used[1] - used[0] > 100 * 200 * 3
        assert len(set(rig.images["first"]["table"])) == 1
        rig.staging.reset()
        assert rig.staging.seal().upload_bytes == used[0]

    def test_only_what_is_seen_is_uploaded(self):
        geometry = Geometry.of(ShortSide(64), CenterCrop(64, 64))
        rig = Rig(geometry, 1)
        rig.staging.load(0, noise(128, 6400))
        assert rig.staging.seal().upload_bytes < 128 * 6400 * 3 / 40

    def test_what_needs_no_resize_has_no_launch_for_it(self):
        rig = Rig(Geometry.of(Stretch(32, 40), TenCrop(30, 30)), 2)
        rig.staging.load(0, noise(32, 40))
        assert rig.staging.seal().blocks == (0, 0, 300)
        rig.staging.load(1, noise(32, 99))
        assert rig.staging.seal().blocks == (8, 0, 300)

    def test_a_geometry_of_the_hosts_is_prepared_there(self):
        geometry = Geometry.of(Trim(2), CenterCrop(32, 30))
        images = pictures(5, seed=5)
        images = [rgb if min(rgb.shape[:2]) > 1 else noise(8, 8) for rgb in images]
        rig = Rig(geometry, 5, temp=temp_bytes(geometry, 5, 1 << 20))
        rig.load(images)
        assert rig.staging.seal().blocks == (0, 0, 32)
        assert np.array_equal(rig.run(), expected(geometry, images))


@pytest.mark.parametrize(
    ("geometry", "batch", "missing"),
    [
        (NATIVE, 1, 0),
        (Geometry.of(TensorFlowResize(8, 8, "nearest")), 1, 0),
        (Geometry.of(Stretch(8, 8)), 0, 0),
        (Geometry.of(Stretch(8, 8)), 65_536, 0),
        (Geometry.of(Stretch(8, 8)), 4, 1),
    ],
    ids=str,
)
def test_what_cannot_be_staged(geometry, batch, missing):
    size = staging_bytes(Geometry.of(Stretch(8, 8)), batch, 0) - missing
    with pytest.raises(ValueError, match=r"native|the kernels make no|do not hold"):
        Staging(np.zeros(size, np.uint8), geometry, batch, temp_bytes=0)


def test_both_languages_have_the_same_numbers():
    source = SOURCE.read_text()
    assert int(re.findall(r"sizeof\(Image\) == (\d+)", source)[0]) == IMAGE.itemsize
    assert int(re.findall(r"sizeof\(Pass\) == (\d+)", source)[0]) == IMAGE["first"].itemsize
    assert int(re.findall(r"const int LINES = (\d+)", source)[0]) == module.LINES
    assert int(re.findall(r"const int MAX_VIEWS = (\d+)", source)[0]) == module.MAX_VIEWS
    # The fields, in their order.
    for struct, dtype in (("Pass", IMAGE["first"]), ("Image", IMAGE)):
        body = re.findall(rf"struct {struct} {{(.*?)}};", source, re.DOTALL)[0]
        code = re.sub(r"//.*|\b(long long|int|Pass)\b|\[MAX_VIEWS\]", "", body)
        assert tuple(re.findall(r"\w+", code)) == dtype.names
