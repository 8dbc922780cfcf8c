"""Plans are compiled for real, ahead of time, by TensorRT-RTX's builder: it needs no GPU."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtdet.build import compile as compile_module
from trtdet.build.builder import builder_status, parse_targets
from trtdet.build.compile import Plan, compile_plan, write_plan
from trtdet.build.plan_key import PlanKey
from trtdet.errors import BackendError, InputError

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="TensorRT-RTX is not installed: pip install 'trtdet[tensorrt-rtx]'",
    exc_type=ImportError,
)

KEY = PlanKey("tensorrt-rtx", "1.7.1.116", "sm_86", "0" * 64, 1, (("tf32", "off"),))


def write_graph(
    path: Path,
    *,
    activation: str = "Relu",
    batch: int | str = "batch",
    side: int | str = 32,
    image: str = "image",
    seed: int = 0,
) -> Path:
    """A small detector as `trtdet build` exports one: uint8 NHWC in, normalised, one logit out."""
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.float32(255),
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "std": np.full((1, 3, 1, 1), 0.25, np.float32),
        "kernel": random.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(size=16).astype(np.float32),
        "head_weight": random.normal(size=(1, 16)).astype(np.float32),
        "head_bias": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Cast", [image], ["x0"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x0"], ["x1"], name="nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["x1", "scale"], ["x2"], name="unit"),
        helper.make_node("Sub", ["x2", "mean"], ["x3"], name="centre"),
        helper.make_node("Div", ["x3", "std"], ["x4"], name="normalise"),
        helper.make_node("Conv", ["x4", "kernel", "bias"], ["x5"], name="conv", pads=[1] * 4),
        helper.make_node(activation, ["x5"], ["x6"], name="activation"),
        helper.make_node("GlobalAveragePool", ["x6"], ["x7"], name="pool"),
        helper.make_node("Flatten", ["x7"], ["x8"], name="flatten"),
        helper.make_node(
            "Gemm", ["x8", "head_weight", "head_bias"], ["logit"], name="head", transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(image, TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


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
        options=(("tf32", "off"),),
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


def test_every_field_of_the_key_is_in_the_name() -> None:
    others = [
        replace(KEY, flavour="tensorrt"),
        replace(KEY, version="1.7.1.117"),
        replace(KEY, target="sm_120"),
        replace(KEY, graph_sha256="1" * 64),
        replace(KEY, batch=2),
        replace(KEY, options=()),
        replace(KEY, schema=KEY.schema + 1),
    ]
    names = {key.file_name for key in (KEY, *others)}
    assert len(names) == 1 + len(others)
    assert KEY.file_name == replace(KEY).file_name
    assert KEY.file_name == "tensorrt-rtx-1.7.1.116-sm_86-b1-1ef1760f802f.plan"  # for ever


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


def test_a_plan_is_written_with_its_record(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "bundle/plans"
    path = write_plan(folder, plan)
    assert path == folder / plan.key.file_name
    assert path.read_bytes() == plan.data
    record = path.with_suffix(".json").read_bytes()
    assert json.loads(record) == {
        "key": {
            "flavour": "tensorrt-rtx",
            "version": trt.__version__,
            "target": "sm_86",
            "graph_sha256": plan.key.graph_sha256,
            "batch": 2,
            "options": {"tf32": "off"},
            "schema": 1,
        },
        "plan_sha256": hashlib.sha256(plan.data).hexdigest(),
        "size_bytes": len(plan.data),
    }
    assert write_plan(folder, plan) == path
    assert path.read_bytes() == plan.data
    assert path.with_suffix(".json").read_bytes() == record
    assert len(list(folder.iterdir())) == 2
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode  # not a temporary file's 0600


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError("No space left on device")])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("files_before", [0, 1])
def test_an_interrupted_write_leaves_no_half_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: BaseException,
    step: str,
    files_before: int,
) -> None:
    """The first or the second file is interrupted; the plan may then be there, its record not."""
    real, calls = getattr(os, step), []

    def interrupt(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > files_before:
            raise interruption
        return real(*arguments)

    monkeypatch.setattr(os, step, interrupt)
    expected = KeyboardInterrupt if isinstance(interruption, KeyboardInterrupt) else InputError
    with pytest.raises(expected, match="No space left" if expected is InputError else None):
        write_plan(tmp_path, Plan(KEY, b"plan"))
    assert [path.name for path in tmp_path.iterdir()] == [KEY.file_name][:files_before]


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
        "from trtdet.build.compile import compile_plan, write_plan\n"
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_raised_after_the_build(
    graph: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """TensorRT calls its logger, in Python, while it builds: there an exception would be lost."""
    held = compile_module._interrupts_held

    @contextlib.contextmanager
    def interrupted() -> Iterator[None]:
        with held():
            os.kill(os.getpid(), number)
            yield

    monkeypatch.setattr(compile_module, "_interrupts_held", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        compile_plan(graph, target="sm_86", batch=1)
    assert signal.getsignal(number) is before
