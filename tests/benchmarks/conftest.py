"""Fixtures of the tests of a run on a GPU: the GPU made of the CPU, a bench, a bundle for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.gpu_on_fake import install_gpu, make_bench, place_bundle
from tests.engine.fake_gpu import Fake
from trtdet.benchmarks.gpu_section import Bench
from trtdet.engine.bundle import Bundle


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    return install_gpu(monkeypatch)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return make_bench(tmp_path / "out")


@pytest.fixture
def bundle(small_bundle: Path, bench: Bench, monkeypatch) -> Bundle:
    return place_bundle(small_bundle, bench, monkeypatch)
