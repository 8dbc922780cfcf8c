"""A spec is read whole or refused with the key, what it is, and what it can be."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from trtdet.build.foreign_spec import GraphInput, GraphOutput, Scaling, read_spec
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import Stretch, TensorFlowResize
from trtdet.errors import InputError

SMALL = """
name = "net"
[input]
layout = "NCHW"
[[geometry]]
kind = "stretch"
height = 24
width = 20
[normalization]
scale = 255
[output]
meaning = "logit"
"""


def indented_block(path, first_line: str) -> str:
    """The indented block of a Markdown file that starts with this line."""
    lines = path.read_text().splitlines()
    start = lines.index(f"    {first_line}")
    block = []
    for line in lines[start:]:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block)


def test_what_a_small_spec_says(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SMALL)
    spec = read_spec(path)
    assert spec.name == "net"
    assert spec.input == GraphInput(None, "NCHW", "float32", "RGB")
    assert spec.geometry == Geometry.of(Stretch(24, 20, "bilinear"))
    assert spec.scaling == Scaling(255.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert spec.output == GraphOutput(None, "logit", "synthetic", None)
    assert spec.tolerance == 1e-4
    assert spec.licence == ""


def test_the_readmes_example(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(indented_block(REPOSITORY / "README.md", "# detector.toml"))
    spec = read_spec(path)
    assert spec.geometry == Geometry.of(TensorFlowResize(224, 224, "bicubic"))
    assert spec.geometry.dtype is np.float32
    assert spec.output == GraphOutput(None, "probabilities", "real", 0)
    assert spec.licence


def test_the_pages_example_has_every_key(tmp_path):
    page = REPOSITORY / "docs/onnx.md"
    path = tmp_path / "spec.toml"
    path.write_text(indented_block(page, "# every-key.toml"))
    spec = read_spec(path)
    assert spec.input == GraphInput("input_1", "NCHW", "float32", "BGR")
    assert len(spec.geometry.steps) == 2
    assert spec.scaling == Scaling(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert spec.output == GraphOutput("dense_1", "probability", "real", None)
    assert spec.tolerance == 1e-3
    texts = (spec.title, spec.paper, spec.repository, spec.licence, spec.trained_on, spec.note)
    assert all(texts)


def test_every_step_is_named_in_the_page():
    from trtdet.engine.steps import KINDS

    page = (REPOSITORY / "docs/onnx.md").read_text()
    assert not [kind for kind in KINDS if f"`{kind}`" not in page]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "net"', "", "name: is missing; it is a text"),
        ('name = "net"', "name = 3", "name: is 3, not a text"),
        ('name = "net"', 'name = "net"\nlicense = "MIT"', "license: there is no such key, but"),
        ('name = "net"', 'name = "net"\ntolerance = 0', "tolerance: is 0, not a number above 0"),
        ('layout = "NCHW"', "", '[input] layout: is missing; it is "NHWC" or "NCHW"'),
        ('layout = "NCHW"', 'layout = "CHW"', """[input] layout: is 'CHW', not "NHWC" or"""),
        ('layout = "NCHW"', 'layout = "NCHW"\ndtype = "int8"', "[input] dtype: is 'int8', not"),
        ("[input]", "[inputs]", "[input]: is missing"),
        ("[[geometry]]", "[[geometries]]", "[[geometry]]: is missing: a step such as"),
        ('kind = "stretch"', 'kind = "spiral"', "[[geometry]] step 1: {'kind': 'spiral'"),
        ('kind = "stretch"', 'kind = "opencv_resize"', "step 1: opencv_resize needs height, width"),
        ("width = 20", 'width = 20\nfilter = "cubic"', "filter 'cubic' is none of bilinear"),
        ("width = 20", "width = 20\nside = 1", "stretch has no side, but height, width, filter"),
        ("height = 24", "height = 0", "not made of whole numbers above 0"),
        (
            'kind = "stretch"\nheight = 24\nwidth = 20',
            'kind = "short_side"\nsize = 256',
            'the last step, "shorter side to 256, Pillow bilinear", does not set the size',
        ),
        ("scale = 255", "", "[normalization] scale: is missing; it is a number above 0"),
        ("scale = 255", "scale = true", "[normalization] scale: is True, not a number above 0"),
        ("scale = 255", "scale = 255\nmean = [0.5]", "mean: is [0.5], not three numbers"),
        ("scale = 255", "scale = 255\nstd = [1, 1, 0]", "not three numbers above 0"),
        ("[normalization]\nscale = 255", "", "[normalization]: is missing"),
        ('layout = "NCHW"', 'layout = "NCHW"\ndtype = "uint8"', "a graph with uint8 input gets"),
        ('meaning = "logit"', 'meaning = "score"', "[output] meaning: is 'score', not \"logit"),
        ('meaning = "logit"', 'meaning = "logit"\nreal = 0', "real: there is no such key, but"),
        ('meaning = "logit"', 'meaning = "logit"\npositive = "fake"', "positive: is 'fake', not"),
        ('meaning = "logit"', 'meaning = "logits"', "a class's number; it has neither"),
        (
            'meaning = "logit"',
            'meaning = "logits"\nreal = 0\nsynthetic = 1',
            "a class's number; it has synthetic and real",
        ),
        ('meaning = "logit"', 'meaning = "logits"\nreal = -1', "real: is -1, not a class's number"),
        ('name = "net"', "name = net", "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_key_says_what_it_is_and_what_it_can_be(tmp_path, old, new, message):
    path = tmp_path / "spec.toml"
    assert SMALL.count(old) == 1
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_spec(path)
    assert str(path) in str(raised.value)


def test_bytes_cannot_come_from_tensorflows_resize(tmp_path):
    text = SMALL.replace('"NCHW"', '"NCHW"\ndtype = "uint8"').replace("[normalization]", "")
    text = text.replace("scale = 255", "").replace("stretch", "tensorflow_resize")
    path = tmp_path / "spec.toml"
    path.write_text(text.replace("width = 20", 'width = 20\nfilter = "nearest"'))
    with pytest.raises(InputError, match="TensorFlow's resize gives float32"):
        read_spec(path)


def test_a_spec_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"no\.toml: No such file"):
        read_spec(tmp_path / "no.toml")
