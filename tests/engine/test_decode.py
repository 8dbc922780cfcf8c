"""Pixels and refusals of `decode_rgb` against Pillow's, and the reasons for files that fail."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from trtdet.engine import decode
from trtdet.engine.decode import (
    DEFAULT_MAX_PIXELS,
    decode_rgb,
    quiet_decoders,
    read_image_file,
)
from trtdet.engine.headers import read_plain_header
from trtdet.errors import ImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def real_files(shared: Path) -> list[bytes]:
    """Real images of each format: every one of `shared/images`, some of `shared/cup`."""
    images = [path for path in sorted((shared / "images").iterdir()) if path.suffix != ".csv"]
    return [path.read_bytes() for path in images + sorted(shared.glob("cup/*.jpg"))[::50]]


def by_pillow(data: bytes) -> np.ndarray | None:
    """What Pillow makes of the bytes: uint8 [H, W, 3], or None where it refuses them."""
    try:
        return np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    except Exception:  # whatever Pillow raises is a refusal
        return None


def check(data: bytes) -> bool:
    """Assert that `decode_rgb` does what Pillow does. Returns whether that is an image."""
    expected = by_pillow(data)
    if expected is None:
        with pytest.raises(ImageError, match=r"^[^\n]{5,}$"):
            decode_rgb(data, max_pixels=DEFAULT_MAX_PIXELS)
        return False
    rgb = decode_rgb(data, max_pixels=DEFAULT_MAX_PIXELS)
    assert rgb.dtype == np.uint8
    assert rgb.shape == expected.shape
    assert rgb.tobytes() == expected.tobytes()
    return True


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours and noise, with alpha."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 4), dtype=np.uint8), "RGBA")
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = smooth + rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8), "RGBA")


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    record = Image.Exif()
    record[0x0112], record[0x011A], record[0x0128] = orientation, 72.0, 2
    return record


MODES = {
    "JPEG": "1 L RGB CMYK YCbCr",
    "PNG": "1 L LA I;16 P RGB RGBA",
    "WEBP": "RGB RGBA L",
    "AVIF": "RGB RGBA L",
    "GIF": "1 L P RGB RGBA",
    "TIFF": "1 L LA P RGB RGBA CMYK YCbCr LAB I;16 I F",
    "BMP": "1 L P RGB RGBA",
    "PPM": "1 L RGB I;16",
    "ICO": "RGB RGBA",
    "TGA": "1 L LA P RGB RGBA",
    "JPEG2000": "L LA RGB RGBA I;16",
    "PCX": "1 L P RGB",
    "SGI": "L RGB RGBA",
    "DDS": "L RGB RGBA",
    "QOI": "RGB RGBA",
    "IM": "1 L P RGB CMYK",
    "XBM": "1",
    "MSP": "1",
    "SPIDER": "F",
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [
        {"quality": quality, "subsampling": subsampling, **extra}
        for quality in (20, 95)
        for subsampling in (0, 1, 2)
        for extra in (
            {},
            {"progressive": True},
            {"optimize": True, "exif": exif(6)},
            {"restart_marker_blocks": 1, "icc_profile": b"profile" * 20},
            {"progressive": True, "restart_marker_rows": 1, "comment": b"words"},
            {"keep_rgb": True},
        )
    ],
    "PNG": [{}, {"compress_level": 0}, {"transparency": 0}, {"dpi": (72, 72), "exif": exif(3)}],
    "WEBP": [{"quality": 5}, {"lossless": True}, {"exif": exif(8), "xmp": b"<x/>"}],
    "TIFF": [{"compression": name} for name in (None, "tiff_lzw", "tiff_deflate", "packbits")],
    "BMP": [{}],
    "TGA": [{}, {"compression": "tga_rle"}],
    "GIF": [{}, {"transparency": 3}, {"interlace": 0}],
}


@pytest.mark.parametrize("image_format", MODES)
def test_every_format_and_mode_equals_pillow(image_format: str):
    Image.init()
    if image_format not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {image_format}")
    accepted = 0
    for mode in MODES[image_format].split():
        for width, height in ((1, 1), (7, 2), (16, 16), (33, 17)):
            rgba = picture(width, height)
            image = rgba.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else rgba
            for options in OPTIONS.get(image_format, [{}]):
                try:
                    data = encode(image.convert(mode), image_format, **options)
                except (OSError, ValueError, TypeError, KeyError):
                    continue  # this option does not go with this mode
                accepted += check(data)
    assert accepted >= 4


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_of_several(image_format: str):
    if image_format == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow does not write AVIF")
    frames = [picture(40, 30, seed).convert("RGB") for seed in range(3)]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert check(data)


@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111, 0x121111, 0x411111])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg_of_another_encoder(sampling: int, progressive: int):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    for size in ((1, 1), (17, 9), (64, 48)):
        pixels = np.asarray(picture(*size).convert("RGB"))
        assert check(cv2.imencode(".jpg", pixels, options)[1].tobytes())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"),
                     ("WEBP", "RGB"), ("WEBP", "RGBA"), ("PNG", "P"), ("GIF", "P")]),
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 100), st.integers(0, 2),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_random_files_equal_pillow(kind, width, height, quality, subsampling, flag, seed):
    image = picture(width, height, seed).convert(kind[1])
    options: dict[str, Any] = {"quality": quality} if kind[0] in ("JPEG", "WEBP") else {}
    if kind[0] == "JPEG":
        options |= {"subsampling": subsampling, "progressive": flag}
    if kind[0] == "WEBP":
        options |= {"lossless": flag, "method": 0}
    assert check(encode(image, kind[0], **options))


def test_real_files_equal_pillow(real_files: list[bytes]):
    assert all(check(data) for data in real_files)
    # The fast path takes nearly all: of these, only one WebP has alpha.
    assert sum(read_plain_header(data) is not None for data in real_files) >= len(real_files) - 1


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One way in which files go wrong."""
    at = rng.randrange(len(data))
    return [
        lambda: data[:at],
        lambda: data[:at] + b"\xff\xd9",
        lambda: data + rng.randbytes(9),
        lambda: data[:at] + rng.randbytes(1) + data[at + 1 :],
        lambda: data[: at % 700] + rng.randbytes(1) + data[at % 700 + 1 :],
        lambda: data[:at] + data[at + 9 :],
        lambda: data[:at] + rng.randbytes(9) + data[at:],
        lambda: data[:-2] + b"\xff\xc4\0\5\xff\1\2" + data[-2:],
        lambda: data[:-2] + data[20:60] + data[-2:],
    ][rng.randrange(9)]()


def small_files() -> Iterator[bytes]:
    for width, height in ((16, 16), (61, 45)):
        rgba = picture(width, height)
        image = rgba.convert("RGB")
        for subsampling in (0, 1, 2):
            for options in ({}, {"progressive": True}, {"exif": exif(6)}):
                yield encode(image, "JPEG", subsampling=subsampling, **options)
        for mode in ("L", "RGB", "RGBA", "P"):
            yield encode(rgba.convert(mode), "PNG", icc_profile=b"profile", dpi=(9, 9))
        for options in ({}, {"lossless": True}, {"exif": exif(6)}):
            yield encode(image, "WEBP", **options)
        yield from (encode(image, other) for other in ("GIF", "TIFF", "BMP", "JPEG2000", "PPM"))


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.full)])
def test_damaged_files_get_pillows_verdict(real_files: list[bytes], rounds: int):
    quiet_decoders()
    rng = random.Random(rounds)
    small = [data for data in real_files if len(data) < 60_000]
    sources = ([*small_files()] * 40 + rng.sample(small, 40) * 5) * rounds
    verdicts = [check(damaged(data, rng)) for data in sources]
    assert 300 < sum(verdicts) < len(verdicts) - 300


def test_crafted_jpeg_that_opencv_accepts_and_pillow_refuses():
    data = encode(picture(64, 64).convert("RGB"), "JPEG")
    wrong = data[:-2] + b"\xff\xda\0\2" + data[-2:]
    flags = cv2.IMREAD_COLOR_RGB
    assert cv2.imdecode(np.frombuffer(wrong, np.uint8), flags) is not None
    assert not check(wrong)


def test_damaged_extended_webp_that_opencv_alone_accepts():
    """OpenCV, given the whole file, reads on in the metadata behind a picture that is damaged."""
    data = encode(picture(90, 60).convert("RGB"), "WEBP", exif=exif(6), xmp=b"<x/>" * 50)
    rng = random.Random(1)
    differences = 0
    for _ in range(200):
        at = rng.randrange(60, len(data) - 300)
        wrong = data[:at] + rng.randbytes(2) + data[at + 2 :]
        accepted = cv2.imdecode(np.frombuffer(wrong, np.uint8), cv2.IMREAD_COLOR_RGB) is not None
        differences += accepted and not check(wrong)
    assert differences > 0


def test_threads_share_the_decoders(real_files: list[bytes]):
    quiet_decoders()
    files = [data for data in real_files if len(data) < 60_000] * 2
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, files))


def test_plain_files_take_the_fast_path(monkeypatch: pytest.MonkeyPatch):
    image = picture(30, 20).convert("RGB")
    cases = [(name, encode(image, name)) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]
    expected = {name: by_pillow(data) for name, data in cases}

    def refuse(data: bytes, max_pixels: int) -> None:
        raise RuntimeError("Pillow was asked")

    monkeypatch.setattr(decode, "_decode_with_pillow", refuse)
    for name, data in cases[:3]:
        assert np.array_equal(decode_rgb(data, max_pixels=600), expected[name])
    for _, data in cases[3:]:
        with pytest.raises(RuntimeError, match="Pillow was asked"):
            decode_rgb(data, max_pixels=600)


def test_pillow_decides_where_opencv_fails_or_is_too_old(monkeypatch: pytest.MonkeyPatch):
    data = encode(picture(30, 20).convert("RGB"), "JPEG")
    for answer in (None, np.zeros((20, 31, 3), np.uint8), np.zeros((20, 30, 3), np.uint16)):
        with monkeypatch.context() as patch:
            patch.setattr(decode.cv2, "imdecode", lambda *_, answer=answer: answer)
            assert check(data)
    decode._opencv_is_exact.cache_clear()
    monkeypatch.setattr(decode.cv2, "__version__", "4.12.0")
    assert not decode._opencv_is_exact("JPEG")
    decode._opencv_is_exact.cache_clear()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000"])
def test_the_limit_is_checked_before_any_pixel(image_format: str, monkeypatch: pytest.MonkeyPatch):
    data = encode(picture(30, 20).convert("RGB"), image_format)
    assert decode_rgb(data, max_pixels=600).shape == (20, 30, 3)

    def decoded(*_: object) -> None:
        raise RuntimeError("a pixel was decoded")

    monkeypatch.setattr(decode.cv2, "imdecode", decoded)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    reason = "^30x20 is 0.0006 Mpixel, over the limit of 0.000599 Mpixel; raise .*--max-pixels$"
    with pytest.raises(ImageError, match=reason):
        decode_rgb(data, max_pixels=599)


def test_pillows_own_limit_is_named_and_can_be_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    header = b"P6 200000 1000 255\n"  # and no pixels
    quiet_decoders()
    assert 2 * Image.MAX_IMAGE_PIXELS == DEFAULT_MAX_PIXELS
    with pytest.raises(ImageError, match=r"200000000 pixels.*raise it with --max-pixels"):
        decode_rgb(header, max_pixels=DEFAULT_MAX_PIXELS)
    quiet_decoders(300_000_000)
    with pytest.raises(ImageError, match="truncated PPM"):
        decode_rgb(header, max_pixels=300_000_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not an image that Pillow can read"),
        (encode(picture(9, 9).convert("L"), "JPEG")[:-20], "truncated JPEG: "),
        (encode(picture(9, 9), "PNG")[:-40], "truncated PNG: "),
        (encode(picture(9, 9), "PNG")[:30], "not an image|truncated|damaged"),
        (encode(picture(9, 9).convert("P"), "GIF")[:-60], "truncated GIF: "),
        (encode(picture(9, 9), "WEBP")[:-9], "not an image|damaged"),
        (encode(picture(9, 9).convert("RGB"), "EPS"), "EPS needs an external program"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 needs a plugin"),
        (b"GRIB\0\0\0\1" + bytes(64), "GRIB needs a plugin"),
    ],
)
def test_reasons(data: bytes, reason: str):
    with pytest.raises(ImageError, match=reason):
        decode_rgb(data, max_pixels=DEFAULT_MAX_PIXELS)


@pytest.mark.parametrize(
    "error", [MemoryError(), struct.error("x"), KeyError("x"), RecursionError(), AssertionError()]
)
def test_whatever_pillow_raises_costs_one_row(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"damaged GIF: |not enough memory"):
        decode_rgb(encode(picture(9, 9).convert("P"), "GIF"), max_pixels=100)


def test_nothing_is_printed(tmp_path: Path):
    """In a process of its own: what the codecs say about damaged files does not reach stderr."""
    rng = random.Random(5)
    large = picture(200, 200).convert("RGB")
    for number in range(60):
        source = encode(large, ("JPEG", "PNG", "WEBP", "TIFF")[number % 4])
        (tmp_path / f"{number:02}").write_bytes(damaged(source, rng))
    (tmp_path / "odd").write_bytes(encode(large, "JPEG")[:-2] + b"stray bytes\xff\xd9")
    (tmp_path / "palette").write_bytes(encode(large.convert("P"), "PNG", transparency=b"\1\2"))
    (tmp_path / "bomb").write_bytes(b"P6 99999 1000 255\n")
    program = """if 1:
        import ctypes, sys
        from pathlib import Path
        from trtdet.engine.decode import decode_rgb, quiet_decoders
        from trtdet.errors import ImageError
        if len(sys.argv) > 2:
            quiet_decoders()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                decode_rgb(path.read_bytes(), max_pixels=10**8)
            except ImageError:
                pass
        if sys.platform == "linux":
            ctypes.CDLL(None).perror(b"other libraries speak")
    """
    command = [sys.executable, "-c", program, str(tmp_path)]
    loud = subprocess.run(command, capture_output=True, check=True)
    assert b"DecompressionBombWarning" in loud.stderr
    assert b"Corrupt JPEG data" in loud.stderr
    quiet = subprocess.run([*command, "quiet"], capture_output=True, check=True)
    assert quiet.stdout == b""
    assert re.fullmatch(rb"(other libraries speak: .*\n)?", quiet.stderr)


# Files --------------------------------------------------------------------------------------------


def test_a_file_is_read_whole(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"n\xe4me \xff.jpg")
    path.write_bytes(b"x" * 100_000)
    link = tmp_path / "link"
    link.symlink_to(path)
    for each in (path, str(path), link):
        assert read_image_file(each) == b"x" * 100_000
    assert len(read_image_file(path, max_bytes=100_000)) == 100_000
    with pytest.raises(ImageError, match=r"has 100,000 bytes, over the limit of 99,999; raise .*"):
        read_image_file(path, max_bytes=99_999)


def test_what_is_no_file_fails_at_once(tmp_path: Path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
    start = time.monotonic()
    for name, reason in {
        "missing": "^file not found$",
        "dangling": "^file not found$",
        "empty/below": "^file not found$",
        ".": "^this is a folder, not a file$",
        "fifo": "pipe, a socket or a device",
        "socket": "pipe, a socket or a device",
        "/dev/zero": "pipe, a socket or a device",
        "empty": "^the file is empty$",
        "loop": "cannot be read: Too many levels",
        "x" * 300: "cannot be read: File name too long",
        "a\0b": "NUL",
        "a\ud900": "cannot be encoded",
    }.items():
        with pytest.raises(ImageError, match=reason):
            read_image_file(tmp_path / name)
    assert time.monotonic() - start < 1


def test_a_file_without_permission(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0)

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    # Only here: pytest itself opens folders, to remove them.
    with pytest.MonkeyPatch.context() as patch:
        if os.access(path, os.R_OK):  # the superuser reads everything
            patch.setattr(os, "open", deny)
        with pytest.raises(ImageError, match=r"^no permission to read the file$"):
            read_image_file(path)
