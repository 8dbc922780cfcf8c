"""The CUDA kernels compiled for one kind of GPU. No GPU is needed for that.

By NVRTC, which comes as a wheel, else by nvcc. A cubin is for a driver that is at least as new as
the compiler's CUDA, whose major version therefore should not be newer than the driver's.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from trtdet.errors import BackendError

SOURCE = Path(__file__).with_name("preprocess.cu")
NVCC_TIMEOUT_S = 300.0


def compile_cubin(arch: str) -> bytes:
    """`preprocess.cu` for GPUs like "sm_86".

    Raises BackendError with each compiler's reason, and what to install.
    """
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise BackendError(f"{arch!r} is no kind of GPU: sm_86, for instance, is one")
    reasons = []
    for name, compiler in (("NVRTC", _by_nvrtc), ("nvcc", _by_nvcc)):
        try:
            return compiler(arch)
        except BackendError as error:
            reasons.append(f"{name}: {error}")
    raise BackendError(
        f"the CUDA kernels cannot be compiled for {arch} ({'; '.join(reasons)}): "
        "pip install 'trtdet[cuda]'"
    )


def _by_nvrtc(arch: str) -> bytes:
    try:
        nvrtc: Any = importlib.import_module("cuda.bindings.nvrtc")
        result, program = nvrtc.nvrtcCreateProgram(
            SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], []
        )
    except (ImportError, OSError, RuntimeError) as error:  # the wheel, or the library behind it
        raise BackendError(_one_line(str(error))) from error
    _check(nvrtc, result)
    try:
        options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17"]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = _read(nvrtc, program, "ProgramLog").decode(errors="replace")
            raise BackendError(_one_line(log.strip("\0")) or f"{result.name}")
        return _read(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(nvrtc: Any, program: Any, what: str) -> bytes:
    """What NVRTC has made, in a buffer of ours that it fills."""
    result, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
    _check(nvrtc, result)
    buffer = bytes(size)
    (result,) = getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    _check(nvrtc, result)
    return buffer


def _check(nvrtc: Any, result: Any) -> None:
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(str(result.name))


def _by_nvcc(arch: str) -> bytes:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise BackendError("not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "preprocess.cubin"
        command = [nvcc, "-cubin", f"-arch={arch}", "-std=c++17", "-o", str(cubin)]
        command.append(str(SOURCE))
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=NVCC_TIMEOUT_S
            )
            return cubin.read_bytes()
        except subprocess.CalledProcessError as error:
            raise BackendError(_one_line(error.stderr) or str(error)) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(_one_line(str(error))) from error


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
