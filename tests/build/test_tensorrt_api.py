"""Every name of TensorRT that our code uses is in every TensorRT that we say we work with.

PyPI has the Python bindings of every release, and they need their libraries for no more than to be
imported: libraries that export the same few functions, and do nothing, are enough to look at the
names. What the code uses is read from the code.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trtdet.engine.lock import locked

# JetPack 6 and 7 have the first three; what their own wheels are called does not matter.
BINDINGS = {
    "10.3": ("tensorrt-cu12-bindings==10.3.0", "tensorrt_bindings"),
    "10.13": ("tensorrt-cu12-bindings==10.13.3.9.post1", "tensorrt_bindings"),
    "10.16": ("tensorrt-cu12-bindings==10.16.1.11", "tensorrt_bindings"),
    "11.4": ("tensorrt-cu12-bindings==11.4.0.106", "tensorrt_bindings"),
    "lean 10.3": ("tensorrt-lean-cu12-bindings==10.3.0", "tensorrt_lean_bindings"),
    "lean 11.4": ("tensorrt-lean-cu12-bindings==11.4.0.106", "tensorrt_lean_bindings"),
}

# The kind of TensorRT's object that a variable is, in the files that have them. `trt` is the module
# everywhere.
ENGINE = {
    "engine/tensorrt_library.py": {},
    "engine/loaded_plan.py": {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
    },
    "engine/tensorrt.py": {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
    },
    "engine/tensorrt_tiles.py": {"_context": "IExecutionContext"},
    "engine/open_tensorrt.py": {},
}
BUILD = {
    "build/builder.py": {},
    "build/compile.py": {},
    "build/plan_builder.py": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "error": "ParserError",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
    },
    "build/plan_order.py": {},
    "build/profiles.py": {
        "each": "ITensor",
        "network": "INetworkDefinition",
        "tensor": "ITensor",
    },
    "build/progress_monitor.py": {},
    "build/timing_cache.py": {"cache": "ITimingCache", "config": "IBuilderConfig"},
}

# What our subclasses take from their bases.
INHERITED = {
    "ILogger.INTERNAL_ERROR",
    "ILogger.ERROR",
    "ILogger.WARNING",
    "ILogger.log",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
}

# Reached only where the library offers targets to compile for ahead of time.
TENSORRT_RTX_ALONE = {
    "ComputeCapability.CURRENT",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}

# That the reading of the code works: a few of what it must find.
CERTAINLY = {
    "Builder.build_serialized_network",
    "Builder.create_network",
    "BuilderFlag.TF32",
    "BuilderFlag.VERSION_COMPATIBLE",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_memory_pool_limit",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.num_io_tensors",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_tensor_address",
    "INetworkDefinition.get_input",
    "IOptimizationProfile.set_shape",
    "ITensor.shape",
    "ITimingCache.combine",
    "MemoryPoolType.WORKSPACE",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.parse_from_file",
    "ParserError.node_operator",
    "Runtime.deserialize_cuda_engine",
    "__version__",
}

SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("nvinfer", "nvinfer_lean", "nvinfer_plugin", "nvonnxparser")

LOOK = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
trt = importlib.import_module(sys.argv[2])
found = {}
for name in json.load(sys.stdin):
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
    found[name] = None if value is None else value.__doc__ or ""
from trtdet.engine.tensorrt_library import logger_of
logger = logger_of(trt)
logger.log(trt.ILogger.ERROR, "an  error")
assert logger.last() == "an error"
if hasattr(trt, "IProgressMonitor"):
    from trtdet.build.progress_monitor import Progress, monitor_of
    phases = []
    monitor = monitor_of(trt, Progress(phases.append))
    monitor.phase_start("outer", None, 2)
    monitor.phase_start("inner", "outer", 3)
    assert monitor.step_complete("inner", 0)
    monitor.phase_finish("inner")
    monitor.progress.cancelled.set()
    assert not monitor.step_complete("outer", 0)
    assert [(phase.name, phase.depth, phase.done) for phase in phases] == [
        ("outer", 0, 0), ("inner", 1, 0), ("inner", 1, 1), ("inner", 1, 1), ("outer", 0, 1)
    ]
print(json.dumps(found))
"""


@dataclass
class Uses:
    """What a file uses of TensorRT: names, the keywords they are called with, and what is asked."""

    names: set[str] = field(default_factory=set)
    keywords: dict[str, set[str]] = field(default_factory=dict)
    guards: set[str] = field(default_factory=set)


def read_uses(path: Path, kinds: dict[str, str]) -> Uses:
    """Attributes of the module and of its objects, by the names of the variables that hold them."""
    uses = Uses()

    def resolve(node: ast.expr) -> str | None:
        """The path of what an expression is: "" for the module, "Builder", "BuilderFlag", ..."""
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        own = isinstance(node, ast.Name) or name == "trt" or str(name).startswith("_")
        if own and name in {"trt": "", **kinds}:
            return {"trt": "", **kinds}[name]
        if isinstance(node, ast.Attribute) and resolve(node.value) == "":
            return node.attr  # an enumeration or a class of the module
        return None

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and (owner := resolve(node.value)) is not None:
            name = f"{owner}.{node.attr}".lstrip(".")
            uses.names.add(name)
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            owner = resolve(node.func.value)
            if owner is not None and (given := {str(word.arg) for word in node.keywords}):
                called = f"{owner}.{node.func.attr}".lstrip(".")
                uses.keywords.setdefault(called, set()).update(given)
        elif isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
            asked = node.args[1]
            if isinstance(asked, ast.Constant):
                uses.guards.add(str(asked.value))
    return uses


@cache
def all_uses(lean: bool = False) -> Uses:
    """Of all files; `lean`: of those that run plans."""
    both = Uses(names=set(INHERITED))
    for name, kinds in {**ENGINE, **({} if lean else BUILD)}.items():
        if (REPOSITORY / name).is_file():
            uses = read_uses(REPOSITORY / name, kinds)
            both.names |= uses.names
            both.guards |= uses.guards
            for called, words in uses.keywords.items():
                both.keywords.setdefault(called, set()).update(words)
    if lean:
        both.names -= {name for name in both.names if name.startswith("IProgressMonitor")}
    return both


def check(found: dict[str, str | None], uses: Uses, beyond: set[str]) -> None:
    """Every name is there, or asked for before it is used; every keyword is a method's own."""
    missing = {
        name
        for name, doc in found.items()
        if doc is None and not set(name.split(".")) & uses.guards and name not in beyond
    }
    assert not missing
    for name, words in uses.keywords.items():
        if doc := found[name]:
            unknown = {word for word in words if f"{word}:" not in doc}
            assert not unknown, f"{name} of this version has no {unknown}: {doc.splitlines()[0]}"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries that do nothing."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make libraries with")
    folder = tmp_path_factory.mktemp("libraries")
    source = folder / "nothing.c"
    source.write_text("".join(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    made = folder / "nothing.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, source], check=True)
    for name in LIBRARIES:
        for major in (10, 11):
            shutil.copy(made, folder / f"lib{name}.so.{major}")
    return folder


@pytest.fixture(scope="module")
def wheels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what was downloaded is kept from run to run."""
    if (kept := getattr(request.config, "cache", None)) is None:
        return tmp_path_factory.mktemp("wheels")
    return kept.mkdir("tensorrt-bindings")


def unpack(requirement: str, wheels: Path) -> Path:
    """The folder of a release's bindings; skips where there are none for this Python."""
    tag = f"{requirement}-cp{sys.version_info.major}{sys.version_info.minor}"
    folder = wheels / tag
    with locked(wheels / f"{tag}.lock", on_wait=lambda: None):
        if not folder.is_dir():
            part = wheels / f"{tag}.part"
            shutil.rmtree(part, ignore_errors=True)
            command = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            try:
                subprocess.run(
                    [sys.executable, *command, "--dest", part, requirement],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"pip does not get {requirement}")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"pip does not get {requirement}: {error.stderr.splitlines()[-1:]}")
            (wheel,) = part.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part)
            wheel.unlink()
            part.replace(folder)
    return folder


def look(folder: Path, module: str, libraries: Path, names: set[str]) -> dict[str, str | None]:
    """The documentation of each name in another process; None where there is none."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(folder), module],
        input=json.dumps(sorted(names)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def test_the_code_is_read_as_it_is() -> None:
    seen = all_uses()
    if all((REPOSITORY / name).is_file() for name in ENGINE):
        assert seen.names >= CERTAINLY
    assert seen.keywords["IOptimizationProfile.set_shape"] == {"min", "opt", "max"}
    assert {"TF32", "IProgressMonitor", "ComputeCapability"} <= seen.guards


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the wheels are for Linux")
@pytest.mark.parametrize("version", BINDINGS)
def test_every_name_is_in_every_version(version: str, wheels: Path, libraries: Path) -> None:
    requirement, module = BINDINGS[version]
    uses = all_uses(lean=version.startswith("lean"))
    found = look(unpack(requirement, wheels), module, libraries, uses.names)
    check(found, uses, TENSORRT_RTX_ALONE)


def test_every_name_is_in_tensorrt_rtx(tmp_path: Path) -> None:
    module = "tensorrt_rtx_bindings"
    pytest.importorskip(module, reason="TensorRT-RTX is not installed", exc_type=ImportError)
    uses = all_uses()
    check(look(tmp_path, module, tmp_path, uses.names), uses, set())


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"Builder.create_network": None}, "create_network"),
        ({"IBuilderConfig.set_timing_cache": "set_timing_cache(cache: ITimingCache)"}, "mismatch"),
    ],
)
def test_a_name_that_is_missing_is_found_out(names: dict[str, str | None], reason: str) -> None:
    uses = Uses(set(names), {"IBuilderConfig.set_timing_cache": {"ignore_mismatch"}}, {"TF32"})
    with pytest.raises(AssertionError, match=reason):
        check({"IBuilderConfig.set_timing_cache": None, **names}, uses, set())
