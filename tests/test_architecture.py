"""The rooms and their one-way dependencies, and what importing them may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Each room may import the rooms after it; `trtdet` itself may import any.
ORDER = ["trtdet", "benchmarks", "build", "calibration", "engine"]

# What every room may use of `trtdet` itself: leaves that import nothing of ours.
LEAVES = {"trtdet", "trtdet.__version__", "trtdet.errors"}

# Compiling runs on the device that scores, where neither is installed.
TENSORRT_ALONE = {
    "build/builder.py",
    "build/compile.py",
    "build/plan_builder.py",
    "build/plan_order.py",
    "build/plan_settings.py",
    "build/profiles.py",
    "build/progress_monitor.py",
    "build/timing_cache.py",
    "engine/built.py",
    "engine/lock.py",
    "engine/plan_fit.py",
    "engine/plan_key.py",
    "engine/plans.py",
}

FORBIDDEN = {
    "engine": {"torch", "onnx", "onnxsim", "onnxscript", "safetensors"},
    "calibration": {"torch"},
}

SOURCES = [path for room in ORDER for path in sorted((REPOSITORY / room).rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or ""}
            if node.module == "trtdet":  # `from trtdet import engine`: the name is a module
                found |= {f"trtdet.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_dependencies_point_one_way(path: Path):
    relative = path.relative_to(REPOSITORY)
    room = relative.parts[0]
    forbidden = FORBIDDEN.get(room, set())
    if str(relative) in TENSORRT_ALONE:
        forbidden = {"torch", "onnx", "cv2", "PIL", "openvino"}
    for module in imported_modules(path):
        top = module.split(".")[0]
        assert top not in forbidden, f"{relative} imports {module}"
        if top != "trtdet" or room == "trtdet" or module in LEAVES:
            continue
        target = module.split(".")[1]
        assert target in ORDER, f"{relative} imports {module}: a room uses the leaves of trtdet"
        assert ORDER.index(target) >= ORDER.index(room), f"{relative} imports {module}"


@pytest.mark.parametrize("leaf", ["trtdet/__init__.py", "trtdet/errors.py"])
def test_leaves_import_nothing_of_ours(leaf: str):
    assert not {name for name in imported_modules(REPOSITORY / leaf) if name.startswith("trtdet")}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that are loaded after `statement` in a new interpreter."""
    program = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_runtime_loads_neither_torch_nor_onnx_nor_an_unused_backend():
    everything = "\n".join(
        f"import trtdet.engine.{path.stem}"
        for path in sorted((REPOSITORY / "engine").glob("[!_]*.py"))
        if "openvino" not in path.stem
    )
    assert "trtdet" in modules_after("import trtdet.engine")
    for statement in ("import trtdet.engine", everything):
        unwanted = {"torch", "onnx", "onnxsim", "openvino", "tensorrt", "tensorrt_rtx", "pycuda"}
        unwanted |= {"pyarrow"}
        assert not unwanted & modules_after(statement)
    assert "openvino" in modules_after("import trtdet.engine.openvino")


def test_help_loads_nothing_heavy():
    statement = (
        "from trtdet.cli import cli\n"
        "for arguments in (['--help'], ['score', '--help'], ['build', '--help'], "
        "['fetch', '--help']):\n"
        "    cli.main(arguments, standalone_mode=False)"
    )
    heavy = {"torch", "onnx", "openvino", "tensorrt", "tensorrt_rtx", "cv2", "numpy", "rich"}
    assert not heavy & modules_after(statement)


def test_compiling_plans_loads_tensorrt_alone():
    assert not {"torch", "onnx", "cv2", "openvino"} & modules_after("import trtdet.build.compile")


def test_fetching_loads_neither_torch_nor_onnx():
    assert not {"torch", "onnx", "cv2"} & modules_after("import trtdet.build.weights_store")
