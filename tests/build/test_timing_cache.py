"""The timing cache's file. TensorRT-RTX's builder takes the calls, though it measures nothing."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtdet.build.timing_cache import attach_timing_cache, keep_timing_cache, timing_cache_path
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.store import store_folder
from trtdet.engine.tensorrt_library import logger_of

KEY = PlanKey("tensorrt", "10.3.0", "sm_87", "0" * 64, 1, (("compiled_on", "Orin (64 GB)"),))

pytestmark = pytest.mark.filterwarnings("ignore:.*TensorRT-RTX 1.2:DeprecationWarning")


@pytest.fixture(scope="module")
def builder() -> Any:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    return trt.Builder(logger_of(trt))


def test_it_is_of_a_library_a_version_and_a_gpu() -> None:
    path = timing_cache_path(KEY)
    assert path == store_folder() / "timing" / "tensorrt-10.3.0-sm-87-Orin-64-GB-.cache"


@pytest.mark.parametrize(
    "key",
    [
        PlanKey("tensorrt-rtx", "1.7.1.116", "sm_86", "0" * 64, 1, ()),
        PlanKey("tensorrt-rtx", "1.7.1.116", "sm_86", "0" * 64, 1, (("compiled_on", "A10"),)),
    ],
)
def test_where_nothing_is_measured_there_is_none(key: PlanKey) -> None:
    assert timing_cache_path(key) is None


def test_it_is_kept_and_taken_again(builder: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "timing" / "some.cache"
    for _ in range(2):  # the second time merges with what is there
        config = builder.create_builder_config()
        assert attach_timing_cache(config, path, lines.append)
        keep_timing_cache(config, path, lines.append)
        content = path.read_bytes()
        assert content[:32] == sha256(content[32:]).digest()
        assert content[32:] == bytes(config.get_timing_cache().serialize())
    assert [each.name for each in path.parent.iterdir()] == ["some.cache"]
    assert lines == []


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 31, b"x" * 300])
def test_a_damaged_file_costs_time_and_no_more(
    builder: Any, tmp_path: Path, content: bytes
) -> None:
    lines: list[str] = []
    path = tmp_path / "some.cache"
    path.write_bytes(content)
    config = builder.create_builder_config()
    assert attach_timing_cache(config, path, lines.append)
    assert lines == [f"{path} is damaged: kernels are timed anew"]
    keep_timing_cache(config, path, lambda _line: None)
    assert attach_timing_cache(builder.create_builder_config(), path, lines.append)
    assert len(lines) == 1


def test_a_file_of_another_gpu_is_left_out(tmp_path: Path) -> None:
    """TensorRT refuses a cache whose header is of another GPU or driver."""
    lines: list[str] = []
    tried: list[bytes] = []
    path = tmp_path / "some.cache"
    path.write_bytes(sha256(b"other").digest() + b"other")

    def set_timing_cache(cache: bytes, ignore_mismatch: bool) -> bool:
        tried.append(cache)
        return not ignore_mismatch and cache == b""

    config = SimpleNamespace(create_timing_cache=bytes, set_timing_cache=set_timing_cache)
    assert attach_timing_cache(config, path, lines.append)
    assert tried == [b"other", b""]
    assert lines == [f"{path} does not fit this GPU and driver: kernels are timed anew"]
    assert not attach_timing_cache(SimpleNamespace(), path, lines.append)


def test_a_folder_that_cannot_be_written_costs_time_and_no_more(
    builder: Any, tmp_path: Path
) -> None:
    lines: list[str] = []
    (tmp_path / "timing").touch()
    config = builder.create_builder_config()
    assert attach_timing_cache(config, tmp_path / "timing/some.cache", lines.append)
    keep_timing_cache(config, tmp_path / "timing/some.cache", lines.append)
    assert lines == [f"the timing cache {tmp_path}/timing/some.cache is not kept: File exists"]
