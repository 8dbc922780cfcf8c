"""What GPU this is, in which state, and which libraries are beside it."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trtdet.benchmarks.gpu_section import Bench, MissingError, Values
from trtdet.benchmarks.gpu_state import find_program, query_gpu, said
from trtdet.benchmarks.record import describe_run
from trtdet.engine.jetson import jetson_status
from trtdet.engine.tensorrt_library import LEAN_MODULES, MODULES
from trtdet.engine.tensorrt_status import Piece, find_pieces

# What `nvidia-smi --query-gpu` knows; a Jetson's and old drivers' know less.
_FACTS = (
    "name", "compute_cap", "driver_version", "vbios_version", "memory.total", "pstate",
    "persistence_mode", "ecc.mode.current", "mig.mode.current", "compute_mode",
    "pcie.link.gen.current", "pcie.link.width.current", "clocks.sm", "clocks.mem",
    "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu",
    "utilization.gpu",
)  # fmt: skip

_PACKAGES = (
    "numpy", "pillow", "opencv-python-headless", "opencv-python", "onnx", "onnxscript", "onnxsim",
    "torch", "openvino", "pycuda", "cuda-bindings", "cuda-python", "nvtx", "tensorrt",
    "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-lean", "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12",
)  # fmt: skip


def run(bench: Bench) -> None:
    """A row for each part of the machine."""
    bench.row("CPU, versions, commit", lambda found: found.update(describe()))
    bench.row("GPU, by nvidia-smi", lambda found: found.update(query_gpu(_FACTS)))
    bench.row("GPU, by NVML", _nvml)
    bench.row("board", _board)
    for piece in find_pieces():
        bench.row(piece.name, partial(_piece, piece))
    for names in (*MODULES.values(), LEAN_MODULES):
        for name in names:
            bench.row(f"import {name}", partial(_import, name))
    bench.row("import torch", _torch)
    bench.row("CUDA toolkit", _toolkit)
    bench.row("compute-sanitizer", partial(_program, "compute-sanitizer"))
    bench.row("packages", _packages)


def describe() -> Values:
    """The CPU, the versions and the commit; what cannot be told costs no run."""
    try:
        return describe_run()
    except OSError as error:  # there is no git
        return {"versions": _versions(), "commit": f"not known: {error}"}


def _piece(piece: Piece, found: Values) -> None:
    if piece.reason:
        raise MissingError(piece.reason)
    found["found"] = piece.found


def _program(name: str, found: Values) -> None:
    found["path"] = find_program(name)


def _nvml(found: Values) -> None:
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # its own kinds, where there is no driver
        raise MissingError(f"pynvml: {error}") from error
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    questions = {
        "name": lambda: nvml.nvmlDeviceGetName(gpu),
        "driver": nvml.nvmlSystemGetDriverVersion,
        "SM clock MHz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "SM clock max MHz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "power W": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "temperature C": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "throttled by": lambda: hex(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
    }
    for name, ask in questions.items():
        try:
            found[name] = ask()
        except nvml.NVMLError as error:
            found[name] = f"unknown ({error})"


def _board(found: Values) -> None:
    """A Jetson's model, release and power mode."""
    status, model = jetson_status(), Path("/proc/device-tree/model")
    if status is None:
        raise MissingError("this is no Jetson")
    found["status"] = status
    if model.is_file():
        found["model"] = model.read_text(errors="replace").strip("\0\n")


def _import(name: str, found: Values) -> None:
    try:
        module: Any = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise MissingError(str(error)) from error
    found |= {"version": module.__version__, "file": getattr(module, "__file__", None)}


def _torch(found: Values) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingError(str(error)) from error
    found |= {"version": torch.__version__, "built for CUDA": torch.version.cuda or "none"}
    if torch.cuda.is_available():
        cudnn: Any = torch.backends.cudnn
        found |= {"GPU": torch.cuda.get_device_name(), "cuDNN": cudnn.version()}


def _toolkit(found: Values) -> None:
    found["nvcc"] = said([find_program("nvcc"), "--version"]).splitlines()[-1]


def _packages(found: Values) -> None:
    found |= _versions()


def _versions() -> Values:
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
