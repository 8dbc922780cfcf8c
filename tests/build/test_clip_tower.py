"""CLIP's tower and the heads on it, against plain re-implementations of the papers' code."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

from tests.conftest import read_rows, run_trtdet, write_rows

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from torch import Tensor, nn  # noqa: E402

from tests.build.random_weights import (  # noqa: E402
    REDUCED,
    find_variant_of,
    random_tensors,
    random_tower,
    seeded,
)
from trtdet.build.assemble import BuildRequest, build_bundle  # noqa: E402
from trtdet.build.clip_tower import ClipTower, TowerOutput, lean_tower  # noqa: E402
from trtdet.build.detectors.registry import find_detector  # noqa: E402
from trtdet.build.detectors.rine import RineHead  # noqa: E402
from trtdet.build.detectors.spec import CLIP  # noqa: E402
from trtdet.build.detectors.univfd import UnivfdHead  # noqa: E402
from trtdet.build.graph import EngineModule, export_graph  # noqa: E402
from trtdet.build.load import TowerDetectors  # noqa: E402
from trtdet.build.tower_shapes import TowerConfig, tower_shapes  # noqa: E402
from trtdet.engine.bundle import open_bundle  # noqa: E402
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb  # noqa: E402
from trtdet.engine.geometry import Geometry, apply_geometry  # noqa: E402
from trtdet.engine.steps import TenCrop  # noqa: E402
from trtdet.errors import CheckpointError  # noqa: E402

CONFIGS = [REDUCED, TowerConfig(192, 2, 3, 16, 48, 32), TowerConfig(64, 1, 1, 8, 24, 16)]


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class OpenAiBlock(nn.Module):
    """A residual block of openai/CLIP's model.py, on [tokens, N, width]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGelu())]
        self.mlp = nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(4 * width, width))]))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class OpenAiTower(nn.Module):
    """The VisionTransformer of openai/CLIP's model.py, with its keys."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        width, side = config.width, config.image_size // config.patch
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        blocks = nn.Sequential(*[OpenAiBlock(width, config.heads) for _ in range(config.layers)])
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.output))

    def forward(self, x: Tensor) -> Tensor:
        """The image's embedding [N, output], as `encode_image`."""
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        first = self.class_embedding + torch.zeros(len(x), 1, x.shape[-1])
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        x = self.ln_pre(x).permute(1, 0, 2)
        x = self.transformer["resblocks"](x).permute(1, 0, 2)
        return self.ln_post(x[:, 0, :]) @ self.proj

    def hooked(self, x: Tensor) -> Tensor:
        """RINE's features [N, blocks, width]: what its forward hooks on every ln_2 keep."""
        kept: list[Tensor] = []
        handles = [
            module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
            for name, module in self.named_modules()
            if "ln_2" in name
        ]
        self(x)
        for handle in handles:
            handle.remove()
        return torch.stack(kept, dim=2)[0]


def openai_tower(config: TowerConfig) -> OpenAiTower:
    tower = OpenAiTower(config)
    assert {k: tuple(v.shape) for k, v in tower.state_dict().items()} == tower_shapes(config)
    tower.load_state_dict(random_tower(config))
    return tower.eval()


def our_tower(config: TowerConfig) -> ClipTower:
    tower = ClipTower(config)
    tensors = random_tower(config)
    tower.load_state_dict({key: tensors[key] for key in tower.state_dict()})
    return tower.eval()


def images(config: TowerConfig, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(count, 3, config.image_size, config.image_size, generator=generator)


def assert_near(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.layers}x{config.width}")
class TestTower:
    @torch.no_grad()
    def test_taps_are_what_rines_hooks_keep(self, config):
        x = images(config)
        taps = our_tower(config)(x).taps
        assert taps.shape == (3, config.layers, config.width)
        assert_near(taps, openai_tower(config).hooked(x))

    @torch.no_grad()
    def test_last_is_what_the_embedding_is_made_of(self, config):
        reference, x = openai_tower(config), images(config)
        seen = our_tower(config)(x)
        last = reference.transformer["resblocks"][-1]
        token = seen.last + last.mlp(seen.taps[:, -1])
        assert_near(reference.ln_post(token) @ reference.proj, reference(x))

    @torch.no_grad()
    def test_lean_is_the_same_function(self, config):
        x = images(config)
        expected = our_tower(config)(x)
        got = lean_tower(our_tower(config))(x)
        for one, other in zip(got, expected, strict=True):
            assert_near(one, other)

    def test_keys_are_those_that_are_read(self, config):
        """All of OpenAI's but the last MLP and what comes after the blocks."""
        last = f"transformer.resblocks.{config.layers - 1}.mlp."
        unread = {"proj", "ln_post.weight", "ln_post.bias"}
        keys = {key for key in tower_shapes(config) if not key.startswith(last)} - unread
        assert set(ClipTower(config).state_dict()) == keys


def products(module: nn.Module, config: TowerConfig) -> tuple[int, int]:
    """Nodes of the exported graph, and multiplications of its products for one image."""
    network = TowerDetectors(module, [Both()])
    graph = export_graph(EngineModule(network, CLIP), config.image_size, config.image_size)
    sizes = {
        value.name: [max(side.dim_value, 1) for side in value.type.tensor_type.shape.dim]
        for value in [*graph.graph.value_info, *graph.graph.output]
    }
    sizes |= {each.name: list(each.dims) for each in graph.graph.initializer}
    work = 0
    for node in graph.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            inner = sizes[node.input[1]][-1 if transposed else -2]
            work += int(np.prod(sizes[node.output[0]])) * inner
    return len(graph.graph.node), work


class Both(nn.Module):
    """A head that needs both of a tower's outputs."""

    def forward(self, seen: TowerOutput) -> Tensor:
        return seen.taps.mean((1, 2))[:, None] + seen.last.mean(1, keepdim=True)


def test_lean_has_less_work():
    config = REDUCED
    nodes, work = products(our_tower(config), config)
    lean_nodes, lean_work = products(lean_tower(our_tower(config)), config)
    # Of three blocks the last, a fifth of the whole without its MLP, is one row in place of 50.
    assert lean_work < 0.9 * work
    assert lean_nodes < nodes


def rine_logit(tensors: dict[str, Tensor], taps: Tensor) -> Tensor:
    """RINE's forward, written out from its paper's code for one image: [blocks, width] to []."""

    def layers(name: str) -> list[tuple[Tensor, Tensor]]:
        numbers = sorted(
            int(key.split(".")[1]) for key in tensors if key.startswith(name) and "weight" in key
        )
        return [(tensors[f"{name}.{n}.weight"], tensors[f"{name}.{n}.bias"]) for n in numbers]

    h = taps
    for weight, bias in layers("proj1"):
        h = (h @ weight.T + bias).clamp(min=0)
    z = torch.zeros(h.shape[1])
    for channel in range(h.shape[1]):  # over the blocks, channel by channel
        share = tensors["alpha"][0, :, channel].exp()
        z[channel] = (share / share.sum() * h[:, channel]).sum()
    for weight, bias in layers("proj2"):
        z = (weight @ z + bias).clamp(min=0)
    (w0, b0), (w3, b3), (w6, b6) = layers("head")
    p = (w3 @ (w0 @ z + b0).clamp(min=0) + b3).clamp(min=0)
    return (w6 @ p + b6)[0]


class TestRine:
    @pytest.mark.parametrize(("projections", "width"), [(1, 24), (2, 64), (4, 32)])
    @torch.no_grad()
    def test_forward(self, projections, width):
        head = seeded(RineHead(REDUCED, projections, width))
        generator = torch.Generator().manual_seed(3)
        head.alpha.copy_(torch.randn(head.alpha.shape, generator=generator) * 2)
        taps = torch.randn(5, REDUCED.layers, REDUCED.width, generator=generator)
        expected = torch.stack([rine_logit(head.state_dict(), each) for each in taps])
        assert expected.std() > 0.01
        got = head(TowerOutput(taps, torch.full((5, REDUCED.width), torch.nan)))
        assert_near(got[:, 0], expected)

    @torch.no_grad()
    def test_importance_is_of_the_blocks_for_each_channel(self):
        """A block with all of a channel's weight is the only one that the channel sees."""
        head = seeded(RineHead(REDUCED, 2, 64))
        head.alpha.fill_(-100.0)
        chosen = torch.arange(64) % REDUCED.layers
        head.alpha[0, chosen, torch.arange(64)] = 100.0
        taps = torch.randn(1, REDUCED.layers, REDUCED.width, generator=torch.Generator())
        h = head.proj1(taps)[0]
        expected = head.head(head.proj2(h[chosen, torch.arange(64)][None]))
        got = head(TowerOutput(taps, taps[:, 0]))
        assert_near(got, expected)

    @pytest.mark.parametrize(
        ("variant", "projections", "width"),
        [("4class", 2, 1024), ("1class", 4, 1024), ("2class", 4, 128), ("ldm", 4, 1024)],
    )
    def test_the_released_shapes(self, variant, projections, width):
        spec = find_detector("rine")
        head = spec.head(find_variant_of(spec, variant), REDUCED, None)
        assert head.alpha.shape == (1, REDUCED.layers, width)
        linear = [each for each in head.proj1 if isinstance(each, nn.Linear)]
        assert len(linear) == projections

    def test_the_shape_is_the_files_and_not_the_variants(self):
        spec = find_detector("rine")
        tensors = RineHead(REDUCED, 3, 40).state_dict()
        head = spec.head(spec.variants[0], REDUCED, tensors)
        assert {k: v.shape for k, v in head.state_dict().items()} == {
            k: v.shape for k, v in tensors.items()
        }

    def test_heads_of_another_tower_and_no_heads_are_refused(self):
        spec = find_detector("rine")
        tensors = RineHead(TowerConfig(192, 5, 3, 16, 48, None), 2, 40).state_dict()
        with pytest.raises(CheckpointError, match=r"5 blocks of width 192.*3 of width 128.*B/32"):
            spec.head(spec.variants[0], REDUCED, tensors)
        with pytest.raises(CheckpointError, match="no weights of a RINE head"):
            spec.head(spec.variants[0], REDUCED, {"weight": torch.ones(1, 64)})


class TestUnivfd:
    @torch.no_grad()
    def test_forward_is_a_layer_on_encode_image(self):
        reference, x = openai_tower(REDUCED), images(REDUCED)
        head = UnivfdHead(REDUCED, REDUCED.output)
        layer = random_tensors({"weight": head.weight, "bias": head.bias})
        tensors = random_tower()
        head.load_state_dict({**layer, **{k: tensors[v] for k, v in head.from_tower.items()}})
        expected = reference(x) @ layer["weight"].T + layer["bias"]
        assert expected.std() > 0.01
        assert_near(head.eval()(our_tower(REDUCED)(x)), expected)

    def test_a_layer_of_another_tower_and_a_tower_without_projection_are_refused(self):
        spec = find_detector("univfd")
        with pytest.raises(CheckpointError, match="reads 768 numbers, and the tower gives 64"):
            spec.head(spec.variants[0], REDUCED, {"weight": torch.ones(1, 768)})
        with pytest.raises(CheckpointError, match="no projection"):
            spec.head(spec.variants[0], TowerConfig(128, 3, 2, 32, 224, None), None)


def scores(bundle, table, folder, *options) -> tuple[list[str], np.ndarray]:
    """The header of an output, and its logits [rows, columns]."""
    run_trtdet("score", "--engine", bundle, table, folder / "out.csv", *options)
    header, *rows = read_rows(folder / "out.csv")
    return header, np.array([[np.float32(each) for each in row[1:]] for row in rows])


@pytest.fixture(scope="module")
def large(pictures):
    """The pictures that ten crops can be made of."""
    sizes = {path: decode_rgb(path.read_bytes(), max_pixels=10**7).shape for path in pictures}
    found = [path for path, size in sizes.items() if min(size[:2]) >= 224]
    assert len(found) >= 2
    return found


def test_two_heads_on_one_tower_are_the_two_bundles(built, synthetic_files, pictures, tmp_path):
    (rine, tower), (univfd, _tower) = (
        synthetic_files("rine", "4class"),
        synthetic_files("univfd", "progan"),
    )
    out = tmp_path / "both"
    run_trtdet(
        "build", "--model", "rine,univfd", "--weights", rine, "--weights", univfd,
        "--backbone", tower, "--variant", "4class,", "--out", out, "--no-default",
    )  # fmt: skip
    bundle = open_bundle(out)
    assert (bundle.detector, bundle.variant) == ("rine,univfd", "4class,progan")
    assert set(bundle.checkpoint) == {"rine", "univfd", "backbone"}
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    header, both = scores(out, table, tmp_path)
    assert header == ["filename", "rine", "univfd"]
    for column, (model, variant) in enumerate((("rine", "4class"), ("univfd", "progan"))):
        header, alone = scores(built(model, variant), table, tmp_path)
        assert header == ["filename", "logit"]
        np.testing.assert_allclose(both[:, column], alone[:, 0], rtol=1e-5, atol=1e-5)
    assert np.abs(both[:, 0] - both[:, 1]).min() > 1e-3
    one_graph = (out / "model.onnx").stat().st_size
    sizes = [(built(*each) / "model.onnx").stat().st_size for each in
             (("rine", "4class"), ("univfd", "progan"))]  # fmt: skip
    assert one_graph < sum(sizes) - 1e6  # the tower is in it once


@pytest.mark.parametrize("batch", [1, 3])
def test_ten_crops_are_averaged(synthetic_files, large, pictures, tmp_path, batch):
    weights, tower = synthetic_files("univfd", "progan")
    request = BuildRequest(
        "univfd", (weights,), backbone=tower, ten_crop=True, out=tmp_path / "ten", batch=batch
    )
    bundle = build_bundle(request, lambda _line: None)
    assert bundle.geometry == Geometry.of(TenCrop(224, 224))
    small = next(path for path in pictures if path not in large)
    table = write_rows(tmp_path / "in.csv", map(str, [*large, small]))
    done = run_trtdet("score", "--engine", bundle.path, table, tmp_path / "out.csv", check=False)
    assert done.returncode == 3
    rows = read_rows(tmp_path / "out.csv")[1:]
    assert rows[-1][1] == ""
    assert "that ten crops need" in read_rows(tmp_path / "out.csv.errors.csv")[1][1]

    reference = openai_tower(REDUCED)
    layer = torch.load(weights)
    mean = torch.tensor(CLIP.mean).view(3, 1, 1)
    std = torch.tensor(CLIP.std).view(3, 1, 1)
    for path, (_name, logit) in zip(large, rows, strict=False):
        rgb = decode_rgb(path.read_bytes(), max_pixels=DEFAULT_MAX_PIXELS)
        views = np.ascontiguousarray(apply_geometry(bundle.geometry, rgb))
        x = (torch.from_numpy(views).permute(0, 3, 1, 2) / 255.0 - mean) / std
        with torch.no_grad():
            ten = reference(x) @ layer["weight"].T + layer["bias"]
        assert ten.std() > 1e-3
        assert float(logit) == pytest.approx(ten.mean().item(), rel=1e-4, abs=1e-4)


def test_the_lean_tower_takes_the_tower_over_and_leaves_a_copy_alone():
    tower = our_tower(REDUCED)
    kept = copy.deepcopy(tower)
    lean_tower(tower)
    x = images(REDUCED, 1)
    with torch.no_grad():
        assert_near(kept(x).taps, openai_tower(REDUCED).hooked(x))
