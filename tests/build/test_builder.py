"""The GPU that is built for: the driver is asked for it, and made to hold it while it is built."""

from __future__ import annotations

import contextlib

import pytest

from trtdet.build import builder
from trtdet.build.builder import current_gpu, on_device
from trtdet.errors import BackendError


class Cuda:
    """The driver's library, with two GPUs; every call is noted."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str):
        def call(*arguments) -> int:
            self.calls.append(name)
            if name == "cuDeviceGet":
                if arguments[1] > 1:
                    return 101
                arguments[0]._obj.value = arguments[1]
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {0: 8, 1: 9}[arguments[2].value]
            elif name == "cuDeviceGetName":
                arguments[0].value = b"GPU %d" % arguments[2].value
            elif name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_INVALID_DEVICE"
            return 0

        return call


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    monkeypatch.setattr(builder.ctypes, "CDLL", lambda _name: fake)
    return fake


@pytest.mark.usefixtures("cuda")
def test_a_gpu_is_named_by_its_number() -> None:
    assert current_gpu() == ("sm_88", "GPU 0")
    assert current_gpu(1) == ("sm_99", "GPU 1")
    with pytest.raises(BackendError, match=r"cuDeviceGet: CUDA_ERROR_INVALID_DEVICE, 101"):
        current_gpu(2)


def test_a_build_has_its_gpu_and_gives_it_back(cuda: Cuda) -> None:
    with on_device(0):
        assert cuda.calls == []  # it is current where nothing else is
    with contextlib.suppress(KeyError), on_device(1):
        assert cuda.calls[-2:] == ["cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"]
        raise KeyError  # a build that fails
    assert cuda.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
    with pytest.raises(BackendError), on_device(2):
        pytest.fail("there is no such GPU")
