"""Native resolution: an image in tiles has the logit of the whole, and the stated field is true."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import onnx  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.build.random_weights import seeded  # noqa: E402
from trtdet.build.assemble import BuildRequest, build_bundle  # noqa: E402
from trtdet.build.detectors.registry import detectors, find_detector  # noqa: E402
from trtdet.build.detectors.spec import IMAGENET, DetectorSpec, Normalization  # noqa: E402
from trtdet.build.graph import EngineModule, export_tiles  # noqa: E402
from trtdet.build.pooled import PooledNetwork, TileModule, fold_pooled  # noqa: E402
from trtdet.build.simplify import simplify_graph  # noqa: E402
from trtdet.engine.backends import choose_backend, compile_graph, infer  # noqa: E402
from trtdet.engine.bundle import open_bundle  # noqa: E402
from trtdet.engine.geometry import NATIVE  # noqa: E402
from trtdet.engine.tiles import Blocks, Tiling, plan_tiles  # noqa: E402
from trtdet.errors import InputError  # noqa: E402

SPECS = [spec for spec in detectors().values() if spec.reach is not None]


class Tiny(PooledNetwork):
    """Stride 4; a cell reads 3 + 2 + 2 + 2 * 2 + 4 * 2 = 19 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.down1 = nn.Conv2d(6, 8, 3, 2, padding=1)
        self.down2 = nn.Conv2d(8, 8, 3, 2, padding=1)
        self.last = nn.Conv2d(8, 5, 3, padding=1)
        self.logit = nn.Linear(5, 1)

    def features(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 1, 1)
        x = torch.relu(self.down2(torch.relu(self.down1(x))))
        return torch.relu(self.last(x))

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.logit(pooled) ** 3  # not linear: it must come after the mean
        return logit


class LinearTiny(Tiny):
    """The same, with a head that may as well come before the mean."""

    def head(self, pooled: Tensor) -> Tensor:
        logit: Tensor = self.logit(pooled)
        return logit


TINY = Tiling(stride=4, halo=12, tile=4096, channels=5)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return seeded(Tiny())


@pytest.fixture(scope="module")
def tiny_graph(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    module = TileModule(fold_pooled(copy.deepcopy(tiny)), IMAGENET)
    onnx.save(simplify_graph(export_tiles(module, TINY)), path)
    return path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A texture that is bright in one corner: parts of it have other logits than the whole."""
    rng = np.random.default_rng([height, width, seed])
    slope = np.linspace(0.3, 1, height)[:, None, None] * np.linspace(0.2, 1, width)[:, None]
    return (rng.integers(0, 256, (height, width, 3)) * slope).astype(np.uint8)


def engine_logits(graph: Path, tiling: Tiling, images: list[np.ndarray]) -> np.ndarray:
    backend, _ = choose_backend("openvino")
    with closing(compile_graph(backend, graph, NATIVE, tiling, batch=1, slots=2)) as session:
        return infer(session, [image[None] for image in images])[:, 0]


def torch_logit(network: nn.Module, normalization: Normalization, image: np.ndarray) -> float:
    with torch.inference_mode():
        return EngineModule(network, normalization)(torch.from_numpy(image[None])).item()


def assert_close(got, expected, tolerance: float) -> None:
    got, expected = np.array(got), np.array(expected)
    error = np.abs(got - expected) / (1 + np.abs(expected))
    assert error.max() <= tolerance, f"{got} for {expected}"


class TestTinyNetwork:
    SIZES = ((1, 1), (3, 50), (64, 64), (61, 103), (200, 33), (131, 150))

    @pytest.mark.parametrize("tile", [28, 30, 64, 4096])
    def test_tiles_have_the_logit_of_the_whole(self, tiny, tiny_graph, tile):
        images = [noise(*size) for size in self.SIZES]
        tiling = replace(TINY, tile=tile)
        count = len(list(plan_tiles(131, 150, tiling)))
        assert (count == 1) == (tile == 4096)
        expected = [torch_logit(tiny, IMAGENET, image) for image in images]
        assert_close(engine_logits(tiny_graph, tiling, images), expected, 1e-5)

    def test_a_halo_too_narrow_is_seen(self, tiny, tiny_graph):
        image = noise(131, 150)
        expected = torch_logit(tiny, IMAGENET, image)
        (narrow,) = engine_logits(tiny_graph, Tiling(4, 4, 28, 5), [image])
        assert abs(narrow - expected) > 1e-4 * (1 + abs(expected))

    @pytest.mark.parametrize("size", [(49, 49), (70, 100), (96, 64), (131, 150)])
    @pytest.mark.parametrize("tile", [28, 4096])
    def test_blocks_are_images_of_their_own_averaged_by_area(self, tiny, tiny_graph, size, tile):
        """GANimageDetection's rule, whose head is linear: sum(l * w) / sum(w)."""
        linear = LinearTiny().eval()
        linear.load_state_dict(tiny.state_dict())
        image = noise(*size)
        logits, areas = [], []
        for top in range(0, size[0], 32):
            for left in range(0, size[1], 32):
                block = image[top : top + 32, left : left + 32]
                logits.append(torch_logit(linear, IMAGENET, np.ascontiguousarray(block)))
                areas.append(block.shape[0] * block.shape[1])
        expected = np.dot(logits, areas) / sum(areas)
        whole = torch_logit(linear, IMAGENET, image)
        assert abs(whole - expected) > 1e-3  # the rule does have scores of its own
        tiling = replace(TINY, tile=tile, blocks=Blocks(over=48, side=32))
        (cubed,) = engine_logits(tiny_graph, tiling, [image])
        assert_close(cubed, expected**3, 1e-5)

    @pytest.mark.parametrize("size", [(48, 48), (48, 150), (150, 20)])
    def test_one_side_alone_is_not_cut(self, tiny, tiny_graph, size):
        image = noise(*size)
        tiling = replace(TINY, tile=28, blocks=Blocks(over=48, side=32))
        expected = torch_logit(tiny, IMAGENET, image)
        assert_close(engine_logits(tiny_graph, tiling, [image])[0], expected, 1e-5)


def field_of(spec: DetectorSpec) -> int:
    assert spec.reach is not None
    return spec.reach.receptive_field


def cells_of(network: PooledNetwork, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.features(x)[0]  # [C, H', W']


@pytest.mark.parametrize("axis", [2, 3], ids=["rows", "columns"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
class TestReceptiveField:
    """A change of pixels along one axis, and which cells of the map notice."""

    def cells_that_notice(self, spec: DetectorSpec, axis: int, changed: slice) -> list[int]:
        """Those along the axis, of an image long enough to have a whole field in it."""
        network = seeded(spec.network(spec.variants[0]))
        assert isinstance(network, PooledNetwork)
        length, across = self.length(spec), 16
        generator = torch.Generator().manual_seed(4)
        shape = (1, 3, length, across) if axis == 2 else (1, 3, across, length)
        x = torch.randn(shape, generator=generator)
        y = x.clone()
        places = (slice(None),) * axis + (changed,)
        y[places] = torch.randn(y[places].shape, generator=generator) * 5
        before, after = cells_of(network, x), cells_of(network, y)
        assert before.shape[axis - 1] == -(-length // spec.reach.stride)
        moved = (before - after).abs().amax((0, 2 if axis == 2 else 1))
        return np.flatnonzero(moved.numpy() > 0).tolist()

    def length(self, spec: DetectorSpec) -> int:
        stride = spec.reach.stride
        return (2 * (field_of(spec) // stride) + 4) * stride

    def test_what_lies_beyond_is_not_read(self, spec: DetectorSpec, axis: int):
        """Cell i owns pixels i * stride onwards; the halo of the tiling is half a field wide."""
        stride, half = spec.reach.stride, field_of(spec) // 2
        halo = -(-half // stride) * stride
        middle = self.length(spec) // 2 // stride * stride
        noticed = self.cells_that_notice(spec, axis, slice(middle, None))
        assert min(noticed) * stride + stride + halo > middle
        assert noticed[0] >= (middle - halo) // stride
        noticed = self.cells_that_notice(spec, axis, slice(0, middle))
        assert noticed[-1] * stride - halo < middle

    def test_and_it_is_not_stated_too_wide(self, spec: DetectorSpec, axis: int):
        """Summed over both sides, what a cell notices is the stated field, to a cell."""
        stride = spec.reach.stride
        middle = self.length(spec) // 2 // stride * stride
        first = min(self.cells_that_notice(spec, axis, slice(middle, None)))
        last = max(self.cells_that_notice(spec, axis, slice(0, middle)))
        # Cell `first` still reads pixel `middle`, and `last` the one before it.
        assert (last - first + 1) * stride >= field_of(spec) - 2 * stride
        assert (last - first - 1) * stride <= field_of(spec)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(8)
    small = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8)
    resized = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 3))
    return np.clip(np.asarray(resized) + grain, 0, 255).astype(np.uint8)


HEAVY = pytest.mark.full
REAL = [
    pytest.param("npr", "native", 136, (300, 262), id="npr"),
    pytest.param("local-grad", "native", 136, (301, 263), id="local-grad"),
    pytest.param("aligned", None, 136, (190, 150), id="aligned", marks=HEAVY),
    pytest.param("imaginet", None, 136, (80, 144), id="imaginet"),
    pytest.param("corvi", None, 136, (190, 150), id="corvi", marks=HEAVY),
    pytest.param("gan-nodown", None, 136, (190, 150), id="gan-nodown", marks=HEAVY),
]


@pytest.mark.parametrize(("model", "geometry", "tile", "size"), REAL)
def test_the_real_networks_in_tiles(built, model, geometry, tile, size):
    spec = find_detector(model)
    options = {"geometry": geometry} if geometry else {}
    bundle = open_bundle(built(model, spec.variants[0].name, **options))
    tiling = replace(bundle.tiling, tile=tile)
    assert len(list(plan_tiles(*size, tiling))) > 1
    image = picture(*size)
    network = seeded(spec.network(spec.variants[0]))
    expected = torch_logit(network, spec.normalization, image)
    (logit,) = engine_logits(bundle.graph, tiling, [image])
    assert_close(logit, expected, 1e-4)


def test_a_detector_without_reach_has_no_native_input(synthetic_weights, tmp_path, monkeypatch):
    from trtdet.build import assemble

    spec = replace(find_detector("npr"), reach=None)
    monkeypatch.setattr(assemble, "find_detectors", lambda _model: [spec])
    weights = synthetic_weights("npr", "npr")
    request = BuildRequest("npr", (weights,), geometry="native", out=tmp_path / "bundle")
    with pytest.raises(InputError, match="npr has no input of native resolution"):
        build_bundle(request, on_stage=lambda _line: None)
