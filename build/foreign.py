"""A graph from elsewhere, checked against its spec before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from trtdet.build.foreign_spec import ONE_PER_CLASS, ForeignSpec, GraphOutput
from trtdet.errors import InputError

# What one protobuf message holds, less room for the nodes that are added.
MAX_BYTES = 2**31 - 2**20

# They give what they take, in another shape or type.
_PASSING = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"}

# The last operation that makes probabilities, by what they mean.
_ACTIVATIONS = {"probability": "Sigmoid", "probabilities": "Softmax"}


@dataclass(frozen=True)
class ForeignGraph:
    """A graph as it is in its file, and what a spec calls its input and output."""

    path: Path
    model: ModelProto  # weights included
    input: ValueInfoProto
    output: ValueInfoProto
    before_activation: str | None  # the tensor that a last Sigmoid or Softmax reads

    @property
    def opset(self) -> int:
        """Of ONNX's own operators."""
        return int(next(each.version for each in self.model.opset_import if each.domain in _ONNX))

    @property
    def fixed_batch(self) -> bool:
        """Whether the graph says that it takes one image at a time."""
        return dims(self.input)[0] == 1

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {len(self.model.graph.node)} nodes, opset {self.opset}, "
            f"{describe(self.input)} to {describe(self.output)}"
        )


_ONNX = ("", "ai.onnx")  # two names of one domain


def read_foreign(path: Path, spec: ForeignSpec) -> ForeignGraph:
    """Load a graph, weights in files beside it too, and check it against its spec.

    Raises InputError that says what the graph has.
    """
    model = _load(path)
    if not any(each.domain in _ONNX for each in model.opset_import):
        raise InputError(f"{path} has no operators of ONNX itself")
    # Before IR version 4 weights stood among the inputs.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) > 1:
        raise InputError(
            f"{path} has {len(inputs)} inputs, {_list(inputs)}: a detector takes the image alone, "
            "so convert it with the others as constants"
        )
    graph_input = _choose(inputs, spec.input.name, f"{path} has the input", "[input] name")
    output = _choose(
        model.graph.output, spec.output.name, f"{path} has the outputs", "[output] name"
    )
    _check_input(graph_input, spec, path)
    kind, before = find_activation(model.graph, output.name)
    _check_output(output, spec.output, kind, path)
    if kind != _ACTIVATIONS.get(spec.output.meaning):
        before = None
    return ForeignGraph(path, model, graph_input, output, before)


def find_activation(graph: GraphProto, tensor: str) -> tuple[str | None, str | None]:
    """The Sigmoid or Softmax whose values `tensor` has: its kind, and the tensor that it reads."""
    producers = {name: node for node in graph.node for name in node.output}
    while (node := producers.get(tensor)) and node.op_type in _PASSING:
        tensor = node.input[0]
    if node is None or node.op_type not in _ACTIVATIONS.values():
        return None, None
    return node.op_type, node.input[0]


def dims(value: ValueInfoProto) -> list[int | str | None]:
    """Every dimension: its size, its name, or None where it is free without a name."""
    shape = value.type.tensor_type.shape.dim
    return [each.dim_value if each.HasField("dim_value") else each.dim_param or None
            for each in shape]  # fmt: skip


def describe(value: ValueInfoProto) -> str:
    """For instance `float32 image [batch, 224, 224, 3]`."""
    if not value.type.tensor_type.HasField("shape"):
        return f"{_dtype(value)} {value.name} of unknown shape"
    shape = ", ".join("?" if each is None else str(each) for each in dims(value))
    return f"{_dtype(value)} {value.name} [{shape}]"


def _load(path: Path) -> ModelProto:
    hint = "convert the model to ONNX first, for instance with tf2onnx or torch.onnx.export"
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"{path} is no ONNX file: {hint}") from error
    if not model.graph.node:
        raise InputError(f"{path} has no graph: {hint}")
    beside = [each for each in model.graph.initializer if each.data_location == each.EXTERNAL]
    size_bytes = path.stat().st_size + sum(map(_size_bytes, beside))
    if size_bytes > MAX_BYTES:
        raise InputError(
            f"{path} has {size_bytes / 1e9:.2f} GB with its weights, and a bundle's graph is one "
            f"file of at most {MAX_BYTES / 1e9:.2f} GB: convert it to float16 first"
        )
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"the weights of {path} are in files beside it, and one cannot be read ({error}): "
            "keep them together"
        ) from error
    return model


def _size_bytes(tensor: TensorProto) -> int:
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * itemsize)


def _choose(
    values: Iterable[ValueInfoProto], name: str | None, having: str, key: str
) -> ValueInfoProto:
    found = [value for value in values if name in (None, value.name)]
    if len(found) == 1:
        return found[0]
    if name is None:
        raise InputError(f"{having} {_list(values) or '(none)'}: say which with {key}")
    raise InputError(f"{having} {_list(values) or '(none)'}, but {key} is {name!r}")


def _check_input(value: ValueInfoProto, spec: ForeignSpec, path: Path) -> None:
    has, wanted = f"{path} takes {describe(value)}", spec.input
    if _dtype(value) != wanted.dtype:
        raise InputError(f"{has}, but [input] dtype is {wanted.dtype}")
    if not value.type.tensor_type.HasField("shape"):
        return
    shape = dims(value)
    if len(shape) != 4:
        raise InputError(f"{has}: {len(shape)} dimensions, where a batch of images has four")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise InputError(
            f"{has}: a fixed batch of {shape[0]}. Convert it with a free batch, or one of 1"
        )
    height, width = spec.geometry.fixed_size
    by_layout = {"NHWC": (height, width, 3), "NCHW": (3, height, width)}
    fits = {
        layout: all(isinstance(each, str | None) or each == want
                    for each, want in zip(shape[1:], wants, strict=True))
        for layout, wants in by_layout.items()
    }  # fmt: skip
    if fits[wanted.layout]:
        return
    other = "NCHW" if wanted.layout == "NHWC" else "NHWC"
    if fits[other] or shape[{"NHWC": 3, "NCHW": 1}[other]] == 3:
        raise InputError(f"{has}, but [input] layout is {wanted.layout}: it looks like {other}")
    channels = shape[{"NHWC": 3, "NCHW": 1}[wanted.layout]]
    if isinstance(channels, int) and channels != 3:
        raise InputError(f"{has}: {channels} channels, where an RGB image has 3")
    raise InputError(f"{has}, but [[geometry]] gives {height}x{width} (height x width)")


def _check_output(
    value: ValueInfoProto, wanted: GraphOutput, activation: str | None, path: Path
) -> None:
    has = f"{path} gives {describe(value)}"
    if _dtype(value) not in ("float32", "float16", "float64"):
        raise InputError(f"{has}: not float, so neither logits nor probabilities")
    expected = _ACTIVATIONS.get(wanted.meaning)
    if activation is not None and expected is None:
        probabilities = next(key for key, kind in _ACTIVATIONS.items() if kind == activation)
        raise InputError(
            f"{has}, which comes from a {activation}, but [output] meaning is "
            f'"{wanted.meaning}": it looks like "{probabilities}"'
        )
    if value.type.tensor_type.HasField("shape"):
        free = dims(value)[1:]
        per_image = [each for each in free if isinstance(each, int)]
        if len(per_image) == len(free):
            check_width(math.prod(per_image), wanted, has)


def check_width(per_image: int, wanted: GraphOutput, has: str) -> None:
    """Raise InputError where an output of so many values per image is not what the spec says."""
    classes = wanted.meaning in ONE_PER_CLASS
    if classes != (per_image > 1):
        singular, plural = ("probability", "probabilities") if "prob" in wanted.meaning else (
            "logit", "logits")  # fmt: skip
        raise InputError(
            f"{has}: {per_image} per image, but [output] meaning is "
            f'"{wanted.meaning}", which is {"one per class" if classes else "a single number"}; '
            f'it looks like "{singular if classes else plural}"'
        )
    if wanted.index is not None and wanted.index >= per_image:
        raise InputError(
            f"{has}: {per_image} per image, but [output] {wanted.positive} is {wanted.index}, "
            f"where classes are numbered 0 to {per_image - 1}"
        )


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of the graphs inside nodes (If, Loop, Scan) too."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _list(values: Iterable[ValueInfoProto]) -> str:
    return ", ".join(map(describe, values))


def _dtype(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else "no tensor"
