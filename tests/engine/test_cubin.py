from __future__ import annotations

import importlib
import shutil
import sys
from types import SimpleNamespace

import pytest

from trtdet.engine import cubin
from trtdet.engine.cubin import compile_cubin
from trtdet.engine.staging import KERNELS
from trtdet.errors import BackendError

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_120"]

# What a compiler says that is older, or newer, than an architecture.
UNKNOWN_ARCHITECTURE = ("invalid value for --gpu-architecture", "Unsupported gpu architecture")


def has_nvrtc() -> bool:
    try:
        importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def check_cubin(data: bytes) -> None:
    assert data.startswith(b"\x7fELF")
    for name in KERNELS:
        assert f".text.{name}\0".encode() in data


def compiled(compiler, arch: str) -> bytes:
    try:
        return compiler(arch)
    except BackendError as error:
        if any(words in str(error) for words in UNKNOWN_ARCHITECTURE):
            pytest.skip(f"this compiler does not know {arch}")
        raise


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nvcc_compiles_the_kernels(arch):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    check_cubin(compiled(cubin._by_nvcc, arch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nvrtc_compiles_the_kernels(arch):
    if not has_nvrtc():
        pytest.skip("no NVRTC: pip install cuda-bindings nvidia-cuda-nvrtc")
    check_cubin(compiled(cubin._by_nvrtc, arch))


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendError) as refusal:
        compile_cubin("sm_86")
    message = str(refusal.value)
    assert "for sm_86 (NVRTC: " in message
    assert "nvcc: not on PATH" in message
    assert message.endswith("pip install 'trtdet[cuda]'")


@pytest.mark.parametrize("arch", ["86", "sm_86 --run", "compute_86", ""])
def test_what_is_no_architecture(arch):
    with pytest.raises(BackendError, match="no kind of GPU"):
        compile_cubin(arch)


@pytest.mark.parametrize("compiler", ["_by_nvcc", "_by_nvrtc"])
def test_what_the_compiler_complains_of_is_told_in_one_line(monkeypatch, tmp_path, compiler):
    if not (shutil.which("nvcc") if compiler == "_by_nvcc" else has_nvrtc()):
        pytest.skip("that compiler is not here")
    broken = tmp_path / "broken.cu"
    broken.write_text("__device__ int half() { return missing; }\n")
    monkeypatch.setattr(cubin, "SOURCE", broken)
    with pytest.raises(BackendError, match=r'^[^\n]*"missing" is undefined[^\n]*$'):
        getattr(cubin, compiler)("sm_90")


class FakeNvrtc:
    """NVRTC's calls as cuda-bindings has them; it fills no buffer."""

    nvrtcResult = SimpleNamespace(NVRTC_SUCCESS=SimpleNamespace(name="NVRTC_SUCCESS"))  # noqa: N815

    def __init__(self, size: int):
        self.size, self.options, self.alive = size, [], 0

    def __getattr__(self, name):
        done = self.nvrtcResult.NVRTC_SUCCESS

        def call(*arguments):
            if name == "nvrtcCreateProgram":
                assert b"place_views" in arguments[0]
                self.alive += 1
                return done, "program"
            if name == "nvrtcCompileProgram":
                self.options = arguments[2]
                assert arguments[1] == len(self.options)
            if name == "nvrtcDestroyProgram":
                self.alive -= 1
            return (done, self.size) if name.endswith("Size") else (done,)

        return call


def test_nvrtc_comes_first_and_its_program_ends(monkeypatch):
    nvrtc = FakeNvrtc(size=1234)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", nvrtc)
    assert len(compile_cubin("sm_90")) == 1234
    assert b"--gpu-architecture=sm_90" in nvrtc.options
    assert nvrtc.alive == 0
