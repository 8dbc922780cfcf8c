"""Plans are compiled for real, ahead of time, by TensorRT-RTX's builder: it needs no GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.build.plan_graphs import write_graph
from trtdet.build.builder import builder_status, parse_targets
from trtdet.build.compile import compile_plan
from trtdet.build.plan_settings import PlanSettings
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan
from trtdet.errors import BackendError, InputError

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="TensorRT-RTX is not installed: pip install 'trtdet[tensorrt-rtx]'",
    exc_type=ImportError,
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture(scope="module")
def plan(graph: Path) -> Plan:
    return compile_plan(graph, target="sm_86", batch=2)


def test_a_plan_has_its_key(graph: Path, plan: Plan) -> None:
    assert plan.key == PlanKey(
        flavour="tensorrt-rtx",
        version=trt.__version__,
        target="sm_86",
        graph_sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
        batch=2,
        options=(("tf32", "off"), ("user_allocation", "required")),
    )
    assert len(plan.data) > 10_000


def test_another_target_is_another_plan(graph: Path, plan: Plan) -> None:
    lines: list[str] = []
    other = compile_plan(graph, target="sm_120", batch=2, on_progress=lines.append)
    assert other.key == replace(plan.key, target="sm_120")
    assert len(other.data) > 10_000
    assert other.data != plan.data
    assert all(line.startswith("sm_120: ") for line in lines)
    assert lines[-1].endswith("accepted by the builder; it still compiles its kernels on the GPU")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no tensors"),
        (b"version https://git-lfs.github.com/spec/v1", "has no tensors|cannot read"),
        (None, "has no tensors|cannot read"),
    ],
)
def test_what_is_no_graph_is_refused(
    tmp_path: Path, graph: Path, content: bytes | None, reason: str
) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(graph.read_bytes()[:-100] if content is None else content)
    with pytest.raises((InputError, BackendError), match=reason):
        compile_plan(broken, target="sm_86", batch=1)
    with pytest.raises(InputError, match="there is no graph"):
        compile_plan(tmp_path / "other.onnx", target="sm_86", batch=1)


@pytest.mark.parametrize(
    ("change", "batch", "reason"),
    [
        ({"image": "pixels"}, 1, "has pixels UINT8"),
        ({"side": "side"}, 1, r"\(-1, -1, -1, 3\)"),
        ({"batch": 4}, 1, "no batch of 1"),
        ({}, 0, "give 1 or more"),
    ],
)
def test_a_graph_that_would_fail_later_is_refused_now(
    tmp_path: Path, change: dict[str, str], batch: int, reason: str
) -> None:
    graph = write_graph(tmp_path / "model.onnx", **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=reason):
        compile_plan(graph, target="sm_86", batch=batch)


def test_a_graph_of_the_fixed_batch_is_taken(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx", batch=4)
    assert compile_plan(graph, target="sm_86", batch=4).key.batch == 4


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx", activation="Reluu")
    with pytest.raises(BackendError, match=r"node 'activation' \(Reluu\): .*Plugin not found"):
        compile_plan(graph, target="sm_86", batch=1)


def test_a_refusal_is_in_the_words_of_the_builder(graph: Path) -> None:
    if "sm_75" not in builder_status():
        pytest.skip("this TensorRT-RTX has no target that refuses FP32")
    with pytest.raises(BackendError, match=r"for sm_75: .*FP32 GEMM is not supported"):
        compile_plan(graph, target="sm_75", batch=1)


@pytest.mark.parametrize("text", ["sm_86", "sm86", "86", "8.6", " SM_86 ,8.6"])
def test_targets_are_read_in_every_spelling(text: str) -> None:
    assert parse_targets(text) == ("sm_86",)


def test_targets_keep_their_order() -> None:
    assert parse_targets("12.0,current,sm_86,120") == ("sm_120", "current", "sm_86")


@pytest.mark.parametrize("text", ["sm_87", "9.0", "sm_86,", "sm_86a", "Orin"])
def test_a_target_not_offered_is_refused_with_the_offers(text: str) -> None:
    with pytest.raises(InputError, match=r"it offers .*sm_80, sm_86, sm_89.*'current'"):
        parse_targets(text)


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_current_without_a_driver_gives_the_loaders_reason(graph: Path) -> None:
    if has_driver():
        pytest.skip("this machine has an NVIDIA driver")
    reason = r"no NVIDIA driver \(libcuda\.so\.1: cannot open shared object file"
    with pytest.raises(BackendError, match=reason):
        compile_plan(graph, target="current", batch=1)
    assert re.search(reason, builder_status())


@pytest.mark.gpu
def test_current_is_the_gpu_of_this_machine(graph: Path) -> None:
    if not has_driver():
        pytest.skip("this machine has no NVIDIA driver")
    key = compile_plan(graph, target="current", batch=1).key
    assert key.target.startswith("sm_")
    assert dict(key.options)["compiled_on"]


def test_status_names_the_builder_and_its_targets() -> None:
    status = builder_status()
    assert f"tensorrt-rtx {trt.__version__}: sm_" in status
    assert "sm_86" in status
    assert "\n" not in status


def test_without_tensorrt_the_reasons_and_the_remedy_are_named(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BackendError) as caught:
        compile_plan(graph, target="current", batch=1)
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        assert f"{module}: lib{module}.so: cannot open" in str(caught.value)
    assert "pip install 'trtdet[tensorrt-rtx]'" in str(caught.value)
    assert builder_status().startswith("no: ")


def test_compiling_is_quiet_and_needs_tensorrt_alone(tmp_path: Path, graph: Path) -> None:
    """In a process of its own: neither torch nor onnx nor OpenCV is imported, nothing printed."""
    program = (
        "import sys; from pathlib import Path\n"
        "from trtdet.build.compile import compile_plan\n"
        "from trtdet.engine.plans import write_plan\n"
        "plan = compile_plan(Path(sys.argv[1]), target='sm_86', batch=1)\n"
        "write_plan(Path(sys.argv[2]), plan)\n"
        "heavy = {'torch', 'onnx', 'cv2', 'PIL', 'openvino'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(graph), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("*.plan"))) == 1


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (PlanSettings(workspace_mib=512), {"workspace_mib": "512"}),
        (PlanSettings(level=0), {"level": "0"}),
        (PlanSettings(timing_cache=False), {}),
        (PlanSettings(64, 5), {"workspace_mib": "64", "level": "5"}),
    ],
)
def test_settings_are_in_the_key(graph: Path, settings: PlanSettings, options: dict) -> None:
    plan = compile_plan(graph, target="sm_86", batch=1, settings=settings)
    assert dict(plan.key.options) == {"tf32": "off", "user_allocation": "required", **options}


def test_a_workspace_that_is_too_small_is_the_builders_word(graph: Path) -> None:
    with pytest.raises(BackendError, match="within workspace limit"):
        compile_plan(graph, target="sm_86", batch=64, settings=PlanSettings(workspace_mib=1))


@pytest.mark.parametrize("settings", [{"workspace_mib": 0}, {"level": 6}, {"level": -1}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give"):
        PlanSettings(**settings)


def test_what_a_library_lacks_is_said_before_it_compiles(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lines = PlanSettings(version_compatible=True), []
    with pytest.raises(InputError, match=r"tensorrt-rtx .* makes no version-compatible plans"):
        compile_plan(graph, target="sm_86", batch=1, settings=settings, on_progress=lines.append)
    assert lines == []
    with pytest.raises(InputError, match="only TensorRT-RTX compiles ahead of time, for sm_86"):
        compile_plan(graph, target="sm_86", batch=1, flavour="tensorrt")
    monkeypatch.delattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    with pytest.raises(BackendError, match=r"cannot keep a graph's types: install TensorRT 10"):
        compile_plan(graph, target="sm_86", batch=1)
