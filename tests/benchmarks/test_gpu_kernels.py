"""The kernels against Pillow, their speed, and the sanitizer, on a GPU made of the CPU."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.benchmarks.gpu_on_fake import (
    all_ok,
    left_open,
    rows,
)
from tests.engine.host_kernels import library
from trtdet.benchmarks import (
    gpu_driver,
    gpu_kernel_speed,
    gpu_kernels,
    gpu_sanitizer,
)
from trtdet.benchmarks.gpu_pictures import drawn, scored_pictures
from trtdet.benchmarks.gpu_resizer import Resizer
from trtdet.benchmarks.gpu_section import WrongError
from trtdet.engine.geometry import Geometry, apply_geometry
from trtdet.engine.steps import CenterCrop, ShortSide, Stretch, TenCrop

SMALL = [(1, 1), (7, 60), (61, 83), (256, 256), (300, 200), (40, 500)]


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.of(Stretch(64, 48, "lanczos")),
        Geometry.of(ShortSide(64, "bicubic"), CenterCrop(72, 56)),
        Geometry.of(ShortSide(64, "bilinear"), TenCrop(56, 56)),
    ],
    ids=["stretch", "crop", "ten crops"],
)
def test_the_kernels_have_pillows_bytes(gpu, geometry):
    found = {}
    with gpu_driver.open_gpu() as device:
        images = partial(gpu_kernels._drawn, SMALL)
        gpu_kernels.compare_all(device, b"cubin", geometry, images, len(SMALL), 1e18, found)
    assert (found["images"], found["of"], found["refused"]) == (len(SMALL), len(SMALL), 0)
    assert found["by the kernels"] == len(SMALL)
    assert found["bytes"] == len(SMALL) * geometry.views * np.prod(geometry.fixed_size) * 3
    assert found["bytes that differ"] == 0
    assert left_open(gpu) == {}


def test_a_kernel_that_is_off_by_one_is_told_with_the_image(gpu, monkeypatch):
    right = Resizer.download

    def wrong(self):
        pixels = right(self)
        pixels[1, 0, 5, 6, 2] += 1
        return pixels

    monkeypatch.setattr(Resizer, "download", wrong)
    found, geometry = {}, Geometry.of(Stretch(32, 32))
    images = partial(gpu_kernels._drawn, SMALL)
    with gpu_driver.open_gpu() as device, pytest.raises(WrongError, match="1 bytes are not Pillow"):
        gpu_kernels.compare_all(device, b"cubin", geometry, images, len(SMALL), 1e18, found)
    assert (found["bytes that differ"], found["first"]) == (1, "drawn 1 7x60 at (0, 5, 6, 2)")
    assert found["largest difference"] in (1, 255)


def test_a_kernel_that_leaves_bytes_out_is_seen(gpu, monkeypatch):
    monkeypatch.setattr(library(), "launch", lambda *_arguments: None)
    found, geometry = {}, Geometry.of(Stretch(32, 32))
    images = partial(gpu_kernels._drawn, SMALL[:2])
    with gpu_driver.open_gpu() as device, pytest.raises(WrongError):
        gpu_kernels.compare_all(device, b"cubin", geometry, images, 2, 1e18, found)
    assert found["bytes that differ"] > 0.9 * found["bytes"]


def test_every_geometry_and_every_image_has_its_row(gpu, bench, pictures, tmp_path, monkeypatch):
    geometries = (Geometry.of(Stretch(24, 24)), Geometry.of(ShortSide(24), TenCrop(20, 20)))
    monkeypatch.setattr(gpu_kernels, "GEOMETRIES", geometries)
    monkeypatch.setattr(gpu_kernels, "all_sizes", lambda: SMALL)
    folder = shutil.copytree(pictures[0].parent, tmp_path / "pictures")
    (folder / "broken.png").write_bytes(b"no image")
    bench.request = replace(bench.request, images=folder)
    gpu_kernels.run(bench)
    assert all_ok(bench)
    assert [row.values["images"] for row in bench.section.rows] == [6, 6, 12, 12]
    assert [row.values["of"] for row in bench.section.rows] == [6, 6, 13, 13]


def test_kernels_are_timed_next_to_a_copy_and_to_pillow(gpu, bench, monkeypatch):
    monkeypatch.setattr(gpu_kernel_speed, "time_copies",
                        partial(gpu_kernel_speed.time_copies, size=1 << 20))  # fmt: skip
    monkeypatch.setattr(gpu_kernel_speed, "INPUTS", {"small": ((60, 80), 2)})
    geometries = (Geometry.of(Stretch(30, 40, "bilinear")), Geometry.of(CenterCrop(20, 20)))
    monkeypatch.setattr(gpu_kernel_speed, "GEOMETRIES", geometries)
    monkeypatch.setattr(gpu_kernel_speed, "scored_pictures", partial(scored_pictures, count=4))
    gpu_kernel_speed.run(bench)
    decode, copies, resized, cropped = bench.section.rows
    assert (decode.status, decode.values["files"]) == ("ok", 4)
    assert (copies.status, resized.status, cropped.status) == ("ok", "ok", "skipped")
    found = resized.values
    assert found["by the kernels"] == found["batch"] == 2
    # Rows 60 -> 30, then columns 80 -> 40, or the other way round; the tables beside.
    one, other = 3 * (60 * 80 + 2 * 30 * 80), 3 * (60 * 80 + 2 * 60 * 40)
    out = 2 * 3 * 30 * 40
    assert found["moved bytes"] - min(one, other) - out in range(3 * 30 * 40, 12_000)
    share = found["GB/s"] / copies.values["within GB/s"]
    assert found["of a copy's GB/s"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("code", "printed", "status", "reason"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", "ok", ""),
        (99, "========= Invalid read\n========= ERROR SUMMARY: 2 errors", "wrong", "Invalid read"),
        (1, "cannot start", "failed", "did not run to its end: cannot start"),
    ],
)
def test_what_the_sanitizer_says_is_kept(bench, monkeypatch, code, printed, status, reason):
    done = subprocess.CompletedProcess([], code, printed, "")
    monkeypatch.setattr(gpu_sanitizer.subprocess, "run", lambda *_, **__: done)
    bench.row("memcheck", partial(gpu_sanitizer._sanitize, "compute-sanitizer", "memcheck", 1.0))
    row = rows(bench)["memcheck"]
    assert row.status == status
    assert reason in row.reason
    if code != 1:
        assert row.values["summary"].startswith("ERROR SUMMARY")


def test_what_an_earlier_batch_left_on_the_gpu_cannot_pass_for_a_result(gpu, monkeypatch):
    geometry, (rgb,) = Geometry.of(Stretch(32, 32)), drawn([(61, 83)])
    with gpu_driver.open_gpu() as device, ExitStack() as stack:
        resizer = Resizer(device, stack, b"cubin", geometry, [(61, 83)])
        resizer.load([rgb])
        resizer.upload()
        resizer.launch()
        np.testing.assert_array_equal(resizer.download()[0], apply_geometry(geometry, rgb))
        monkeypatch.setattr(library(), "launch", lambda *_arguments: None)
        resizer.poison()
        resizer.launch()
        assert (resizer.download() == 0x5A).all()
