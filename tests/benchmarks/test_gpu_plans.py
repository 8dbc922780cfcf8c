"""Whether plans load and run, by the driver alone and by pycuda, on a GPU made of the CPU."""

from __future__ import annotations

import ctypes
from functools import partial

import numpy as np
import pytest

from tests.benchmarks.gpu_on_fake import (
    all_ok,
    fake_plan,
    left_open,
    rows,
)
from tests.engine.fake_gpu import Fake
from trtdet.benchmarks import (
    gpu_driver,
    gpu_libcuda,
    gpu_plans,
)
from trtdet.benchmarks.gpu_micro import KINDS, build_micro, micro_image, micro_logits
from trtdet.benchmarks.gpu_section import WrongError
from trtdet.engine.bundle import load_probes
from trtdet.engine.tensorrt_library import load_library
from trtdet.errors import BackendError


class Libcuda:
    """The driver's own functions, over the fake."""

    def __init__(self, fake: Fake):
        self._fake, self._held = fake, {}

    def __getattr__(self, name: str):
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *_arguments: 0

    def cuDeviceGetName(self, name, _size, _device) -> int:  # noqa: N802
        name.value = b"Fake GPU"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, _device) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0

    def cuCtxPushCurrent_v2(self, _context) -> int:  # noqa: N802
        self._fake.current.depth = getattr(self._fake.current, "depth", 0) + 1
        return 0

    def cuStreamCreate(self, stream, _flags) -> int:  # noqa: N802
        made = self._fake.driver.Stream()
        stream._obj.value = made.handle
        self._held[made.handle] = made
        return 0

    def cuStreamSynchronize(self, stream) -> int:  # noqa: N802
        self._held[stream.value].synchronize()
        return 0

    def cuMemAlloc_v2(self, address, size) -> int:  # noqa: N802
        made = self._fake.driver.mem_alloc(size.value)
        address._obj.value = int(made)
        self._held[int(made)] = made
        return 0

    def cuMemcpyHtoD_v2(self, target, source, size) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, target, source, size) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0


class BrokenLibcuda(Libcuda):
    def cuInit(self, _flags) -> int:  # noqa: N802
        return 100

    def cuGetErrorName(self, _code, name) -> int:  # noqa: N802
        name._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0


class FakeCuda:
    name, target = "Fake GPU", "sm_86"

    def close(self) -> None: ...


def test_a_plan_runs_with_the_driver_alone(gpu, bundle, monkeypatch):
    monkeypatch.setattr(gpu_libcuda, "load_libcuda", lambda: Libcuda(gpu))
    probes = load_probes(bundle.path)
    plan = fake_plan(bundle)
    found = {}
    cuda = gpu_libcuda.Cuda()
    assert (cuda.name, cuda.target) == ("Fake GPU", "sm_86")
    fake_trt = load_library("tensorrt")
    logits = gpu_plans.run_plan(fake_trt, cuda, plan, probes.images[:1], (1, 1), found)
    np.testing.assert_allclose(logits, probes.logits[:1], atol=1e-3)
    assert {"load s", "context s", "first run s", "run us"} <= found.keys()
    with pytest.raises(BackendError, match=r"it does not load: .*magic tag"):
        gpu_plans.run_plan(fake_trt, cuda, b"no plan", probes.images[:1], (1, 1), {})


def test_the_drivers_own_error_is_told(gpu, monkeypatch):
    monkeypatch.setattr(gpu_libcuda, "load_libcuda", lambda: BrokenLibcuda(gpu))
    with pytest.raises(BackendError, match=r"cuInit: CUDA_ERROR_NO_DEVICE \(100\)"):
        gpu_libcuda.Cuda()


def test_a_plan_with_other_numbers_is_wrong(gpu, monkeypatch):
    monkeypatch.setattr(gpu_plans, "Cuda", partial(FakeCuda))
    monkeypatch.setattr(gpu_plans, "build_micro", lambda *_: (b"plan", "a warning"))
    trial = partial(gpu_plans.try_plan, load_library("tensorrt"), "fp16", None, None, "")
    logits = micro_logits()
    found = {}
    monkeypatch.setattr(gpu_plans, "run_plan", lambda *_: logits * 1.005)
    trial(found)
    assert (found["builder said"], found["plan bytes"]) == ("a warning", 4)
    monkeypatch.setattr(gpu_plans, "run_plan", lambda *_: logits * 1.02)
    with pytest.raises(WrongError, match="it runs, and gives"):
        trial(found)
    assert found["largest error"] == pytest.approx(0.02, rel=1e-3)
    monkeypatch.setattr(gpu_plans, "run_plan", lambda *_: logits * np.nan)
    with pytest.raises(WrongError):
        trial(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_network_is_accepted_ahead_of_time(kind):
    try:
        rtx = load_library("tensorrt-rtx")
    except BackendError as error:
        pytest.skip(str(error))
    targets = {name: (cc, level) for name, cc, level in gpu_plans.targets_of(rtx)}
    assert {"portable", "sm_80", "sm_80, AMPERE_PLUS", "current"} <= targets.keys()
    for target in ("portable", "sm_80, AMPERE_PLUS"):
        plan, _warned = build_micro(rtx, kind, *targets[target])
        assert len(plan) > 10_000


def test_eight_bits_cost_the_small_network_less_than_its_tolerance():
    """numpy in place of a GPU: the tolerance is wide enough for right kernels, and no wider."""
    from trtdet.benchmarks import gpu_micro

    def rounded(values, scale):
        return np.clip(np.rint(values / scale), -128, 127) * scale

    first, second = (rounded(each, gpu_micro._WEIGHT_SCALE) for each in gpu_micro._weights())
    image = np.pad(rounded(micro_image(), gpu_micro._IMAGE_SCALE), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (2, 3))
    hidden = np.maximum(np.einsum("ncyxij,kcij->nkyx", windows, first), 0)
    hidden = rounded(hidden, gpu_micro._HIDDEN_SCALE)
    logits = np.einsum("nkyx,ok->noyx", hidden, second[:, :, 0, 0]).mean((2, 3))
    exact = micro_logits()
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert gpu_micro.TOLERANCES["fp16"] / 100 < error < gpu_micro.TOLERANCES["int8"] / 2


def test_pycuda_does_what_the_engine_asks_of_it(gpu, bench, bundle, monkeypatch):
    probes = load_probes(bundle.path)
    plan = fake_plan(bundle)
    sample = gpu_driver.Sample(plan, probes.images[:1], probes.logits[:1], 1e-3)
    monkeypatch.setattr(gpu_driver, "make_sample", lambda _library: sample)
    monkeypatch.setattr(gpu_driver, "_COPIED_BYTES", 1 << 16)
    gpu_driver.run(bench)
    assert all_ok(bench), rows(bench)
    assert len(rows(bench)) == 7
    assert gpu.made["replay"] == 3 + 3
    assert rows(bench)["context"].values["target"] == "sm_86"
    assert left_open(gpu) == {}


def test_a_network_that_does_not_look_at_its_input_is_found_out(gpu, bench, bundle, monkeypatch):
    plan = fake_plan(bundle)
    black = np.zeros((1, *bundle.geometry.fixed_size, 3), np.uint8)
    probes = load_probes(bundle.path)
    sample = gpu_driver.Sample(plan, black, probes.logits[:1] * 0, 10.0)
    monkeypatch.setattr(gpu_driver, "make_sample", lambda _library: sample)
    bench.row("network", partial(gpu_driver._network, False))
    assert (rows(bench)["network"].status, rows(bench)["network"].reason) == (
        "wrong",
        "another input gives the same logits",
    )
