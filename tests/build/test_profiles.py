"""The shapes of a plan: tiles of any size for fully convolutional networks, compiled for real."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.build.plan_graphs import write_bundle, write_graph
from trtdet.build.compile import compile_bundle, compile_plan
from trtdet.build.profiles import NativeSize, check_batch, profile_options
from trtdet.engine.bundle import open_bundle
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import WantedPlan, find_plan, write_plan
from trtdet.engine.tensorrt_library import logger_of
from trtdet.errors import InputError, PlanMissError

trt = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed", exc_type=ImportError
)

SIZE = NativeSize(least=2, tile=100, stride=8, channels=64)


def test_a_tile_has_every_size_up_to_its_own() -> None:
    """Cells are counted as the runtime counts them: a last one that is cut off is a cell."""
    assert SIZE.shapes() == {
        "image": ((1, 2, 2, 3), (1, 100, 100, 3), (1, 100, 100, 3)),
        "rows": ((1,), (13,), (13,)),
        "columns": ((1,), (13,), (13,)),
        "carry": ((1, 64), (1, 64), (1, 64)),
    }


def test_the_shapes_are_in_the_key() -> None:
    assert profile_options(8, None) == []
    assert profile_options((1, 8, 32), None) == [("profile", "1,8,32")]
    assert profile_options(1, SIZE) == [("sides", "2,100")]


@pytest.mark.parametrize(
    ("batch", "native", "reason"),
    [
        (0, None, "no plan has a batch of 0 images: give 1 or more"),
        ((0, 8, 32), None, "no plan has a batch of 0 images"),
        ((8, 1, 32), None, "MIN,OPT,MAX in this order, for instance 1,8,32, not 8,1,32"),
        (2, SIZE, "at native resolution a batch is one image: leave --batch and --profile out"),
        ((1, 1, 2), SIZE, "at native resolution a batch is one image"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(batch, native, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        check_batch(batch, native)


@pytest.mark.parametrize(
    ("model", "variant", "sides"), [("npr", "npr", "2,1024"), ("ferretnet-s", "4cls", "1,1024")]
)
def test_a_network_of_native_resolution_is_compiled_for_its_tiles(
    built: Callable[..., Path], tmp_path: Path, model: str, variant: str, sides: str
) -> None:
    """With a network's own least size: TensorRT warns where shapes of a profile cannot be."""
    bundle = open_bundle(built(model, variant, geometry="native"))
    plan = compile_plan(bundle.graph, target="sm_86", batch=1, native=NativeSize.of(bundle))
    assert plan.key.option("sides") == sides
    assert plan.key.sides == tuple(map(int, sides.split(",")))
    assert len(plan.data) > 1_000_000
    assert not [text for _, text in logger_of(trt).messages if "self-consistent" in text]


def test_tiles_find_their_plan(built: Callable[..., Path], tmp_path: Path) -> None:
    """The bundle is one that other tests share, so its plan goes elsewhere."""
    bundle = open_bundle(built("npr", "npr", geometry="native"))
    native = NativeSize.of(bundle)
    plan = compile_plan(bundle.graph, target="sm_86", batch=1, native=native)
    write_plan(tmp_path / "plans", plan)
    key = plan.key
    fields = (key.flavour, key.version, key.target, key.graph_sha256, 1)
    for tile in (104, 640, 1024):
        assert find_plan(tmp_path / "plans", WantedPlan(*fields, tile=tile)).key == key
    with pytest.raises(PlanMissError, match="other tiles: up to 1024 pixels there, 2048 here"):
        find_plan(tmp_path / "plans", WantedPlan(*fields, tile=2048))
    with pytest.raises(PlanMissError, match="another kind of input"):
        find_plan(tmp_path / "plans", WantedPlan(*fields))
    with pytest.raises(InputError, match="at native resolution"):
        compile_bundle(bundle, "sm_86", 4)


def test_a_graph_of_another_kind_is_refused(built: Callable[..., Path], tmp_path: Path) -> None:
    native = open_bundle(built("npr", "npr", geometry="native"))
    fixed = write_graph(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"has image UINT8 \(rank 4\), rows FLOAT \(rank 1\)"):
        compile_plan(native.graph, target="sm_86", batch=1)
    with pytest.raises(InputError, match=r"not image .*, rows, columns, carry and pooled, and log"):
        compile_plan(fixed, target="sm_86", batch=1, native=SIZE)
    with pytest.raises(InputError, match=r"takes carry of shape \(1, 512\), which is no tile of"):
        compile_plan(native.graph, target="sm_86", batch=1, native=SIZE)


def test_a_graph_of_one_batch_has_no_range(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx", batch=4)
    with pytest.raises(InputError, match=r"shape \(4, 32, 32, 3\), which is no batch of \(1, 4, 8"):
        compile_plan(graph, target="sm_86", batch=(1, 4, 8))


def test_a_bundle_of_one_size_has_no_tiles(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "small")
    assert NativeSize.of(bundle) is None
    assert isinstance(compile_plan(bundle.graph, target="sm_86", batch=1).key, PlanKey)
