"""A graph that does not fit its spec is refused in words that say what the graph has."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("onnx", reason="building needs onnx (trtdet[build])")

import onnx
from onnx import TensorProto, helper

from tests.build.foreign_graphs import Net, spec_text, write_spec
from trtdet.build import foreign
from trtdet.build.foreign import ForeignGraph, find_activation, read_foreign
from trtdet.build.foreign_spec import read_spec
from trtdet.errors import InputError

LOGIT, PROBABILITY = 'meaning = "logit"', 'meaning = "probability"'
NET = Net()


def read(folder, net: Net = NET, output: str = LOGIT, model=None, **spec) -> ForeignGraph:
    path = folder / "net.onnx"
    onnx.save(model or net.graph(), path)
    return read_foreign(path, read_spec(write_spec(folder, spec_text(NET, output, **spec))))


def test_what_a_graph_has(tmp_path):
    found = read(tmp_path, Net(end=("Sigmoid",)), PROBABILITY)
    assert str(found) == (
        "net.onnx: 7 nodes, opset 13, float32 pixels [N, 24, 20, 3] to float32 score [N, 1]"
    )
    assert not found.fixed_batch
    assert read(tmp_path, Net(batch=1)).fixed_batch


@pytest.mark.parametrize(
    ("net", "output", "message"),
    [
        (
            Net(layout="NCHW"),
            LOGIT,
            "takes float32 pixels [N, 3, 24, 20], but [input] layout is NHWC: it looks like NCHW",
        ),
        (
            Net(size=(32, 20)),
            LOGIT,
            "takes float32 pixels [N, 32, 20, 3], but [[geometry]] gives 24x20 (height x width)",
        ),
        (
            Net(layout="NCHW", size=(32, 32)),
            LOGIT,
            "takes float32 pixels [N, 3, 32, 32], but [input] layout is NHWC: it looks like NCHW",
        ),
        (
            Net(dtype="uint8"),
            LOGIT,
            "takes uint8 pixels [N, 24, 20, 3], but [input] dtype is float32",
        ),
        (
            Net(batch=8),
            LOGIT,
            "takes float32 pixels [8, 24, 20, 3]: a fixed batch of 8",
        ),
        (
            Net(classes=2),
            LOGIT,
            'gives float32 score [N, 2]: 2 per image, but [output] meaning is "logit", which is a '
            'single number; it looks like "logits"',
        ),
        (
            Net(),
            'meaning = "probabilities"\nreal = 0',
            'gives float32 score [N, 1]: 1 per image, but [output] meaning is "probabilities", '
            'which is one per class; it looks like "probability"',
        ),
        (
            Net(classes=3),
            'meaning = "logits"\nsynthetic = 3',
            "3 per image, but [output] synthetic is 3, where classes are numbered 0 to 2",
        ),
        (
            Net(end=("Sigmoid",)),
            LOGIT,
            "gives float32 score [N, 1], which comes from a Sigmoid, but [output] meaning is "
            '"logit": it looks like "probability"',
        ),
        (
            Net(classes=2, end=("Softmax", "Identity")),
            'meaning = "logits"\nreal = 0',
            "comes from a Softmax, but [output] meaning is \"logits\": it looks like "
            '"probabilities"',
        ),
        (
            Net(),
            'meaning = "logit"\nname = "prediction"',
            "has the outputs float32 score [N, 1], but [output] name is 'prediction'",
        ),
    ],
)  # fmt: skip
def test_a_graph_that_does_not_fit_its_spec(tmp_path, net, output, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read(tmp_path, net, output)
    assert str(tmp_path / "net.onnx") in str(raised.value)


def test_the_input_by_another_name(tmp_path):
    message = "has the input float32 pixels [N, 24, 20, 3], but [input] name is 'image'"
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, input='name = "image"\nlayout = "NHWC"')


def test_two_inputs(tmp_path):
    model = NET.graph()
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["N"]))
    message = "has 2 inputs, float32 pixels [N, 24, 20, 3], float32 age [N]: a detector takes"
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, model=model)


def test_two_outputs_need_a_name(tmp_path):
    model = NET.graph()
    model.graph.output.append(helper.make_tensor_value_info("Relu_2", TensorProto.FLOAT, None))
    message = (
        "has the outputs float32 score [N, 1], float32 Relu_2 of unknown shape: "
        "say which with [output] name"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, model=model)
    assert read(tmp_path, model=model, output='name = "score"\n' + LOGIT).output.name == "score"


def test_four_channels_and_three_dimensions(tmp_path):
    for shape, message in (
        (["N", 24, 20, 4], "takes float32 pixels [N, 24, 20, 4]: 4 channels, where an RGB image"),
        (["N", 24, 20], "takes float32 pixels [N, 24, 20]: 3 dimensions, where a batch of images"),
    ):
        model = NET.graph()
        value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
        model.graph.input[0].CopyFrom(value)
        with pytest.raises(InputError, match=re.escape(message)):
            read(tmp_path, model=model)


def test_integers_are_no_logits(tmp_path):
    model = NET.graph()
    model.graph.node.append(helper.make_node("Cast", ["score"], ["class"], to=TensorProto.INT64))
    value = helper.make_tensor_value_info("class", TensorProto.INT64, ["N", 1])
    model.graph.output[0].CopyFrom(value)
    with pytest.raises(InputError, match=re.escape("gives int64 class [N, 1]: not float")):
        read(tmp_path, model=model)


def test_free_sides_fit_any_geometry(tmp_path):
    model = NET.graph()
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, None, None, 3])
    model.graph.input[0].CopyFrom(value)
    assert str(read(tmp_path, model=model)).count("[?, ?, ?, 3]") == 1


def test_files_that_are_no_graph(tmp_path):
    spec = read_spec(write_spec(tmp_path, spec_text(NET, LOGIT)))
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match=r"cannot read .*net\.onnx: No such file"):
        read_foreign(path, spec)
    for data, message in (
        (b"\x89HDF\r\n\x1a\n, as a Keras file starts", "is no ONNX file: convert the model"),
        (b"", "has no graph: convert the model to ONNX first"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_foreign(path, spec)


def test_weights_that_were_left_behind_or_are_too_large(tmp_path, monkeypatch):
    spec = read_spec(write_spec(tmp_path, spec_text(NET, LOGIT)))
    path = tmp_path / "net.onnx"
    onnx.save(NET.graph(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert read_foreign(path, spec).model.graph.initializer[0].raw_data
    size_bytes = path.stat().st_size + sum(array.nbytes for array in NET.weights().values())
    monkeypatch.setattr(foreign, "MAX_BYTES", size_bytes)
    read_foreign(path, spec)
    monkeypatch.setattr(foreign, "MAX_BYTES", size_bytes - 1)
    with pytest.raises(InputError, match="GB with its weights, and a bundle's graph is one file"):
        read_foreign(path, spec)
    (tmp_path / "net.data").unlink()
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"one cannot be read .*net\.data.*keep them together"):
        read_foreign(path, spec)


def test_the_activation_is_found_through_what_only_reshapes():
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Squeeze", ["b"], ["c"]),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["d"], ["e"]),
        helper.make_node("Neg", ["e"], ["f"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    assert find_activation(graph, "e") == ("Sigmoid", "x")
    assert find_activation(graph, "f") == (None, None)
    assert find_activation(graph, "x") == (None, None)


def test_an_activation_of_another_kind_than_the_meaning_is_not_taken_off(tmp_path):
    net = Net(classes=2, end=("Sigmoid",))
    found = read(tmp_path, net, 'meaning = "probabilities"\nreal = 0')
    assert found.before_activation is None
    net = replace(net, end=("Softmax",))
    found = read(tmp_path, net, 'meaning = "probabilities"\nreal = 0')
    assert found.before_activation == found.model.graph.node[-1].input[0]
