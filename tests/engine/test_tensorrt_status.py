"""What `trtdet doctor` says of pycuda: which it is, and for which CUDA it was built."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from tests.engine.fake_gpu import install
from trtdet.engine import tensorrt_status
from trtdet.engine.backends import choose_backend
from trtdet.engine.tensorrt_status import find_pieces
from trtdet.errors import BackendError


def no_metadata(name: str) -> str:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("release", "found"),
    [
        (lambda _name: "2026.1", "2026.1, built for CUDA 13.1; the driver is for CUDA 12.6"),
        (no_metadata, "of an unknown release, built for CUDA 13.1; the driver is for CUDA 12.6"),
    ],
)
def test_pycuda_is_named_with_both_cudas(monkeypatch, release, found):
    gpu = install(monkeypatch)
    gpu.driver.get_version = lambda: (13, 1, 0)
    monkeypatch.setattr(tensorrt_status, "version", release)
    monkeypatch.setattr(tensorrt_status, "_driver", lambda: "for CUDA 12.6")
    pieces = {piece.name: piece for piece in find_pieces()}
    assert (pieces["pycuda"].found, pieces["pycuda"].reason) == (found, "")


def test_what_is_chosen_by_itself_looks_no_further_than_the_first_missing_piece(monkeypatch):
    looked: list[str] = []

    def missing(name: str):
        def look() -> str:
            looked.append(name)
            raise BackendError("not here")

        return look

    for name in ("_driver", "_pycuda", "_gpu", "_library"):
        monkeypatch.setattr(tensorrt_status, name, missing(name))
    _chosen, rejected = choose_backend("auto")
    assert [status.reason for status in rejected] == ["NVIDIA driver: not here"]
    assert looked == ["_driver"]
    with pytest.raises(BackendError, match="TensorRT: not here"):
        choose_backend("tensorrt")
    assert looked[1:] == ["_driver", "_pycuda", "_gpu", "_library"]
