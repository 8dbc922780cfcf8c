"""`trtdet build --onnx`, as a user runs it; what is compared, and what is refused and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="building needs onnx (trtdet[build])")
pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import onnx
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.build.foreign_graphs import Net, spec_text, write_spec
from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.build import foreign_bundle, simplify
from trtdet.build.foreign_bundle import ForeignRequest, build_foreign
from trtdet.build.material import PrecisionRequest
from trtdet.engine import store
from trtdet.engine.bundle import load_probes, open_bundle
from trtdet.engine.decision import Decision
from trtdet.engine.digest import sha256_file
from trtdet.engine.resize import resize_tensorflow
from trtdet.errors import BackendError, DriftError, InputError, TrtdetError

SIZES = ((224, 224), (61, 90), (300, 200), (17, 400))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    paths = []
    for number, (height, width) in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def scored(folder: Path, files: list[Path], *options: str) -> np.ndarray:
    table = write_rows(folder / "in.csv", map(str, files))
    run_trtdet("score", *options, table, folder / "out.csv")
    return np.array([float(row[1]) for row in read_rows(folder / "out.csv")[1:]])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_keras_like_graph_from_file_to_scores(tmp_path, files):
    net = Net(size=(224, 224), end=("Sigmoid",), opset=15)
    geometry = 'kind = "tensorflow_resize"\nheight = 224\nwidth = 224\nfilter = "bicubic"'
    top = 'licence = "MIT"\ntrained_on = "noise"'
    text = spec_text(net, 'meaning = "probability"', top=top, geometry=geometry)
    model, spec = net.save(tmp_path), write_spec(tmp_path, text)
    done = run_trtdet("build", "--onnx", model, "--spec", spec, "--batch", "2")
    folder = Path(done.stdout.strip())
    assert done.stdout == f"{folder}\n"
    assert folder == store.bundle_folder("net") == store.default_bundle()
    stages = [line.split()[0] for line in done.stderr.splitlines()]
    assert stages == ["graph", "reference", "simplify", "compare"]
    assert "before the last activation" in done.stderr

    seen = np.stack([resize_tensorflow(pixels(path), 224, 224, "bicubic") for path in files])
    expected = net.logits(seen / 255.0)[:, 0]
    assert np.allclose(scored(tmp_path, files), expected, rtol=2e-5, atol=2e-5)

    bundle = open_bundle(folder)
    assert (bundle.detector, bundle.variant, bundle.batch) == ("net", "onnx", 2)
    assert (bundle.licence, bundle.trained_on) == ("MIT", "noise")
    assert bundle.checkpoint == {
        "file": "net.onnx",
        "sha256": sha256_file(model),
        "released": False,
    }
    probes = load_probes(folder)
    assert probes.images.dtype == np.uint8  # cast where the graph takes float32
    reference = net.logits(probes.images / 255.0)[:, 0]
    assert np.allclose(probes.logits[:, 0], reference, rtol=1e-5, atol=1e-5)
    assert json.loads(run_trtdet("inspect", "--json", "net").stdout)["detector"] == "net"


def test_an_opencv_like_graph_from_file_to_scores(tmp_path, files):
    net = Net(layout="NCHW", classes=3, size=(40, 30), opset=11)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    text = spec_text(
        net,
        'meaning = "logits"\nreal = 1',
        input='layout = "NCHW"\nchannels = "BGR"',
        normalization=f"scale = 255\nmean = {mean}\nstd = {std}",
    )
    model, spec = net.save(tmp_path), write_spec(tmp_path, text)
    options = ("--name", "other", "--out", tmp_path / "bundle", "--no-default", "--platt", "2", "1")
    run_trtdet("build", "--onnx", model, "--spec", spec, *options)
    seen = np.stack(
        [np.asarray(Image.open(path).resize((30, 40), Image.Resampling.BILINEAR)) for path in files]
    )
    x = net.logits(((seen / 255.0 - mean) / std)[..., ::-1])
    expected = 2 * (np.logaddexp(x[:, 0], x[:, 2]) - x[:, 1]) + 1
    logits = scored(tmp_path, files, "--engine", str(tmp_path / "bundle"), "--batch", "3")
    assert np.allclose(logits, expected, rtol=5e-5, atol=5e-5)
    assert open_bundle(tmp_path / "bundle").name == "other"
    assert open_bundle(tmp_path / "bundle").decision == Decision(2.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to build: give --model for a detector"),
        (["--onnx", "net.onnx"], "--onnx net.onnx needs --spec FILE"),
        (["--spec", "spec.toml"], "--spec spec.toml describes a graph: give that with --onnx"),
        (["--onnx", "a", "--spec", "b", "--model", "npr"], "--model is for a detector of the"),
        (["--onnx", "a", "--spec", "b", "--weights", "c"], "--weights is for a detector of the"),
        (["--onnx", "a", "--spec", "b", "--tile", "640"], "--tile is for a detector of the"),
        (["--onnx", "a", "--spec", "b"], "cannot read the spec b: No such file"),
    ],
)
def test_wrong_options_are_one_clear_line(arguments, message):
    done = run_trtdet("build", *arguments, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def refused(
    folder: Path, kind: type[TrtdetError], model: ModelProto, spec: str, message: str
) -> None:
    """The build raises, and leaves nothing behind."""
    path = folder / "net.onnx"
    onnx.save(model, path)
    request = ForeignRequest(path, write_spec(folder, spec), out=folder / "bundle")
    with pytest.raises(kind, match=message):
        build_foreign(request, lambda _line: None)
    assert sorted(each.name for each in folder.iterdir()) == ["net.onnx", "spec.toml"]


def test_numbers_that_are_no_probabilities(tmp_path):
    net = Net(bias=3.0)
    text = spec_text(net, 'meaning = "probability"')
    message = (
        r"gives score, on generated images, from .* to .*: these are no probabilities.*logit\""
    )
    refused(tmp_path, InputError, net.graph(), text, message)


def test_probabilities_that_do_not_add_up(tmp_path):
    net = Net(classes=2, end=("Sigmoid",))
    text = spec_text(net, 'meaning = "probabilities"\nreal = 0')
    refused(tmp_path, InputError, net.graph(), text, r"add up to .*, not to 1: this is no softmax")


def test_a_width_that_only_a_run_shows(tmp_path):
    net = Net(classes=4)
    model = net.graph()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, InputError, model, text, '4 per image, but .* is "logit"')


def test_a_network_that_gives_no_number(tmp_path):
    net = Net(bias=float("nan"))
    refused(tmp_path, InputError, net.graph(), spec_text(net, 'meaning = "logit"'), "as nan: no")


def test_a_graph_whose_batch_cannot_be_freed(tmp_path):
    net = Net(batch=1, end=("Identity",))
    model = net.graph()
    model.graph.node.pop()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    model.graph.node.append(helper.make_node("Gather", ["Gemm_5", "first"], ["score"], axis=0))
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, InputError, model, text, "works on one image at a time: 3 together do not")


def test_a_graph_that_mixes_the_images_of_a_batch(tmp_path):
    net = Net(end=("Identity",))
    model = net.graph()
    model.graph.node.pop()
    nodes = [
        helper.make_node("ReduceMean", ["Gemm_5"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["Gemm_5", "mean"], ["apart"]),
        helper.make_node("Add", ["apart", "mean"], ["again"]),
        helper.make_node("Add", ["again", "mean"], ["score"]),
    ]
    model.graph.node.extend(nodes)
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, InputError, model, text, "works on one image at a time: 3 together do not")


def test_what_openvino_does_not_know_it_says_itself(tmp_path):
    net = Net()
    model = net.graph()
    model.graph.node[2].op_type, model.graph.node[2].domain = "Swirl", "org.example"
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, BackendError, model, text, r"cannot run .*net\.onnx as it is: .*Swirl")


def test_a_simplification_that_moves_the_logits_is_refused(tmp_path, monkeypatch):
    def louder(graph: ModelProto) -> ModelProto:
        changed = ModelProto()
        changed.CopyFrom(graph)
        (bias,) = (each for each in changed.graph.initializer if each.name == "bias")
        bias.CopyFrom(numpy_helper.from_array(np.float32([0.01]), "bias"))
        return changed

    monkeypatch.setattr(simplify, "simplify_graph", louder)
    net = Net()
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, DriftError, net.graph(), text, r"simplified graph .* drifts by 0\.01")


def test_our_own_nodes_are_held_to_the_graph(tmp_path, monkeypatch):
    """Preparing pixels is compared as well: the reference does it apart."""
    made = foreign_bundle.engine_graph

    def off_by_a_level(*arguments) -> ModelProto:
        graph = made(*arguments)
        (scale,) = (each for each in graph.graph.initializer if each.dims == [] and each.raw_data)
        scale.CopyFrom(numpy_helper.from_array(np.float32(256), scale.name))
        return graph

    monkeypatch.setattr(foreign_bundle, "engine_graph", off_by_a_level)
    net = Net(end=("Sigmoid",))
    text = spec_text(net, 'meaning = "probability"')
    refused(tmp_path, DriftError, net.graph(), text, "may give a tolerance")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("starter", "starter is the package's own bundle"),
        ("my detector", "'my detector' cannot name a bundle"),
    ],
)
def test_a_name_that_no_bundle_can_have(tmp_path, name, message):
    text = spec_text(Net(), 'meaning = "logit"').replace('"net"', f'"{name}"')
    refused(tmp_path, InputError, Net().graph(), text, message)


def test_a_graph_that_onnx_itself_does_not_accept(tmp_path):
    net = Net()
    model = net.graph()
    model.graph.node[1].attribute.append(helper.make_attribute("swirl", 3))
    text = spec_text(net, 'meaning = "logit"')
    refused(tmp_path, InputError, model, text, r"is no valid ONNX \(.*swirl.*convert it again")


@pytest.mark.parametrize(
    ("net", "output", "tables"),
    [
        (
            Net(size=(24, 24), end=("Sigmoid",)),
            'meaning = "probability"',
            {"geometry": 'kind = "tensorflow_resize"\nheight = 24\nwidth = 24\nfilter = "bicubic"'},
        ),
        (
            Net(layout="NCHW", classes=4),
            'meaning = "logits"\nreal = 0',
            {"input": 'layout = "NCHW"\nchannels = "BGR"'},
        ),
        (Net(classes=3, end=("Softmax", "Relu")), 'meaning = "probabilities"\nreal = 0', {}),
    ],
)
def test_the_builder_of_tensorrt_rtx_accepts_the_added_nodes(tmp_path, net, output, tables):
    """Floats in, every kind of logit; such a plan still compiles its kernels on the GPU."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    request = ForeignRequest(
        net.save(tmp_path),
        write_spec(tmp_path, spec_text(net, output, **tables)),
        out=tmp_path / "bundle",
        batch=2,
        targets=("sm_86",),
    )
    bundle = build_foreign(request, lambda _line: None)
    (plan,) = bundle.plans.glob("*.plan")
    assert "-sm_86-b2-" in plan.name


def test_fewer_bits_convert_an_older_graph_and_do_not_only_rename_it():
    """ReduceMax takes its axes elsewhere since opset 18: under the new number it would take all."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1], keepdims=0)]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 2])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "net", [x], [y])
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    modern = foreign_bundle.modern(old, Path("net.onnx"))
    assert modern.opset_import[0].version == 19
    values = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    (got,) = ReferenceEvaluator(modern).run(None, {"x": values})
    np.testing.assert_array_equal(got, values.max(1))


def test_a_foreign_graph_in_fewer_bits(tmp_path):
    net = Net(gain=1 / 64)
    model, spec = net.save(tmp_path), write_spec(tmp_path, spec_text(net, 'meaning = "logit"'))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(80):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 30, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index}.png")
    request = PrecisionRequest("fp16", pictures, report_only=True)
    bundle = build_foreign(
        ForeignRequest(model, spec, out=tmp_path / "out", precision=request), lambda _line: None
    )
    assert bundle.precision == "fp16"
    assert bundle.precision_report["compared"]["fp16"]["logit"]["images"] == 48
    eight = replace(request, precision="int8")
    wanted = ForeignRequest(model, spec, out=tmp_path / "no", precision=eight)
    with pytest.raises(InputError, match="no layer that 8 bits would speed up"):
        build_foreign(wanted, lambda _line: None)  # its one convolution reads the front
