"""Every detector in the registry: its record, its keys, its logits, and its simplified form.

A new detector is tested by what runs over the registry; its golden logits are one line below.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from torch import nn  # noqa: E402

from tests.build.random_weights import find_variant_of, seeded  # noqa: E402
from tests.build.recipe import recipe_tensors  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from trtdet.build.checkpoint import Identity, identify, load_into, load_state_dict  # noqa: E402
from trtdet.build.detectors.registry import (  # noqa: E402
    choose_variant,
    detectors,
    find_detector,
)
from trtdet.build.detectors.spec import DetectorSpec, Variant  # noqa: E402
from trtdet.build.graph import EngineModule  # noqa: E402
from trtdet.build.probes import make_probes  # noqa: E402
from trtdet.build.tower_shapes import TowerConfig  # noqa: E402
from trtdet.build.weights_store import CLIP_TOWERS  # noqa: E402
from trtdet.engine.geometry import Geometry, apply_geometry  # noqa: E402
from trtdet.errors import InputError  # noqa: E402

UNKNOWN = Identity(fingerprint="0" * 64, git_blob="0" * 40, sha256="0" * 64)

VARIANTS = [
    pytest.param(spec, variant, id=f"{spec.name} {variant.name}")
    for spec in detectors().values()
    for variant in spec.variants
]

# Whole networks that differ in what they compute.
NETWORKS = [
    pytest.param(spec, variant, id=f"{spec.name} {variant.front_end}".strip())
    for spec in detectors().values()
    for variant in {each.front_end: each for each in reversed(spec.variants)}.values()
    if spec.network is not None
]

# At native resolution: sixteen times the work of a common ResNet-50, and odd sides.
SMALL_NATIVE = (38, 53)


class Golden(NamedTuple):
    """Where the logits of the authors' code are. Without a file, weights are the recipe's."""

    detector: str
    variant: str
    section: str
    logit: str
    file: str | None = None
    geometry: str | None = None  # None: the detector's first
    smallest: int = 0  # how many images, the smallest first; 0: every fourth


GOLDEN = [
    Golden("ferretnet-s", "4cls", "ferretnet_s_real", "logit_centercrop256",
           "ferretnet-s-median-3.pth"),
    Golden("tiny-ladeda", "forensynth", "tiny_ladeda_forensynth_real_resize256", "NPR",
           "ForenSynth_Tiny_LaDeDa.pth"),
    Golden("tiny-ladeda", "wildrf", "tiny_ladeda_wildrf_real_resize256", "left_diag",
           "WildRF_Tiny_LaDeDa.pth"),
    Golden("npr", "npr", "npr_synth", "resize256_nocrop"),
    Golden("npr", "npr", "npr_synth", "native_eventrim", geometry="native"),
    Golden("local-grad", "local-grad", "npr_localgrad_synth", "native", geometry="native"),
    Golden("aligned", "ours", "res50nodown_synth_native", "avgpool_head", smallest=1),
    Golden("gan-nodown", "progan", "res50nodown_synth_native", "avgpool_head", smallest=1),
    Golden("corvi", "latent", "res50nodown_synth_native", "dense_map_mean", smallest=1),
    Golden("imaginet", "imaginet", "imaginet_synth_native", "logit", smallest=1),
]  # fmt: skip

KEYS = {
    "ferretnet-s": "keys_ferretnet_s_ckpt.txt",
    "tiny-ladeda": "keys_tiny_ladeda_ckpt.txt",
    "npr": "keys_npr_resnet50.txt",
    "local-grad": "keys_npr_resnet50.txt",
    "aligned": "keys_res50nodown.txt",
    "gan-nodown": "keys_res50nodown.txt",
    "corvi": "keys_res50stride1_gap1.txt",
}


def logits(network: nn.Module, spec: DetectorSpec, images) -> np.ndarray:
    """Of images uint8 [H, W, 3], one at a time."""
    module = EngineModule(network, spec.normalization).eval()
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(i[None])).numpy() for i in images])[:, 0]


def parameters(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def assert_within(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    relative = np.abs(got - expected) / (1.0 + np.abs(expected))
    assert relative.max() <= tolerance, f"off by {relative.max():.2g} of 1 + |logit|"


@pytest.mark.parametrize(("spec", "variant"), VARIANTS)
def test_record(spec: DetectorSpec, variant: Variant):
    assert spec.licence
    assert variant.trained_on
    assert (spec.network is None) != (spec.head is None)
    assert (spec.head is not None) == (spec.backbone in CLIP_TOWERS)
    if not variant.file:  # found by a person, or our own, to be trained
        assert not variant.url
        assert variant.git_blob is variant.fingerprint is variant.release is None
        assert variant.where or spec.name == "cooccurrence"
        return
    commit = spec.repository.split(" @ ")[1]
    assert re.fullmatch(r"[0-9a-f]{12}", commit)
    repository = spec.repository.split(" @ ")[0].removeprefix("github.com/")
    assert variant.url.startswith(f"https://github.com/{repository}/raw/{commit}/")
    assert variant.url.endswith(f"/{variant.file}")
    assert re.fullmatch(r"[0-9a-f]{40}", variant.git_blob)
    assert variant.fingerprint is None or re.fullmatch(r"[0-9a-f]{64}", variant.fingerprint)


@pytest.mark.parametrize("spec", detectors().values(), ids=lambda spec: spec.name)
def test_native_resolution_has_its_reach(spec: DetectorSpec):
    native = [name for name, each in spec.geometries.items() if each.height is None]
    assert native == (["native"] if spec.reach else [])


@pytest.mark.parametrize(("spec", "variant"), NETWORKS)
class TestEveryNetwork:
    def test_simplified_is_the_same_function(self, spec: DetectorSpec, variant: Variant):
        network = seeded(spec.network(variant))
        before = copy.deepcopy(network.state_dict())
        size = spec.geometry.fixed_size if spec.geometry.height else SMALL_NATIVE
        images = make_probes(*size)
        expected = logits(network, spec, images)
        assert len(set(expected)) == len(images)
        simplified = spec.simplify(network)
        assert_within(logits(simplified, spec, images), expected, max(2e-5, spec.tolerance / 10))
        norms = (nn.BatchNorm1d, nn.BatchNorm2d)
        assert not any(isinstance(module, norms) for module in simplified.modules())
        assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)

    def test_batch_gives_the_logits_of_its_images(self, spec: DetectorSpec, variant: Variant):
        network = spec.simplify(seeded(spec.network(variant)))
        size = 64 if spec.geometry.height else 24
        x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            together = network(x)
            apart = torch.cat([network(image[None]) for image in x])
        assert together.shape == (3, 1)
        assert together.dtype == torch.float32
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


class TestGolden:
    @pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.section)
    def test_logits_of_the_authors_code(self, shared: Path, golden: Golden):
        spec = find_detector(golden.detector)
        network = self.network(shared, spec, golden)
        records = json.loads((shared / "golden/golden.json").read_text())[golden.section]
        # A few, for time: tests/test_golden.py sends more of them through engines.
        names = sorted(name for name in records if golden.logit in records[name])
        if golden.smallest:
            names.sort(key=lambda name: (shared / "golden/images" / name).stat().st_size)
        names = names[: golden.smallest] if golden.smallest else names[::4]
        expected = np.array([records[name][golden.logit] for name in names])
        geometry = spec.geometries[golden.geometry] if golden.geometry else spec.geometry
        images = [self.decoded(shared / "golden/images" / name, geometry) for name in names]
        for form in (network, spec.simplify(network)):
            assert_within(logits(form, spec, images), expected, spec.tolerance)

    def network(self, shared: Path, spec: DetectorSpec, golden: Golden) -> nn.Module:
        variant = find_variant_of(spec, golden.variant)
        network = spec.network(variant).eval()
        if golden.file is None:
            tensors = recipe_tensors(shared, network.state_dict())
        else:
            path = shared / "checkpoints" / golden.file
            tensors = load_state_dict(path)
            identity = identify(path, tensors)
            assert choose_variant(spec, None, identity) is variant
            assert identity.git_blob == variant.git_blob
        load_into(network, tensors, source=golden.section)
        return network

    def decoded(self, path: Path, geometry: Geometry) -> np.ndarray:
        with Image.open(path) as image:
            (view,) = apply_geometry(geometry, np.asarray(image.convert("RGB")))
        return np.array(view)

    @pytest.mark.parametrize("name", KEYS)
    def test_keys_of_the_released_files(self, shared: Path, name: str):
        spec = find_detector(name)
        state = spec.network(spec.variants[0]).state_dict()
        assert sorted(listed_keys(state)) == sorted(released_keys(shared, KEYS[name]))

    def test_keys_of_imaginets_file(self, shared: Path):
        """What only training needs is left out of the first part, and nothing else."""
        spec = find_detector("imaginet")
        own = spec.network(spec.variants[0]).state_dict()
        released = [
            line
            for line in released_keys(shared, "keys_imaginet_model.txt")
            if not line.startswith(spec.layout.training_only)
        ]
        classifier = released_keys(shared, "keys_imaginet_classifier.txt")
        assert len(classifier) == 9
        assert sorted(listed_keys(own)) == sorted(
            [*released, *(f"classifier.{line}" for line in classifier)]
        )

    def test_keys_of_rines_file(self, shared: Path):
        spec = find_detector("rine")
        vit_l14 = TowerConfig(1024, 24, 16, 14, 224, 768)
        head = spec.head(find_variant_of(spec, "2class"), vit_l14, None)
        released = released_keys(shared, "keys_rine_2class_ckpt.txt")
        assert sorted(listed_keys(head.state_dict())) == sorted(released)

    def test_keys_of_univfds_file(self, shared: Path):
        head = find_detector("univfd").head(None, TowerConfig(1024, 24, 16, 14, 224, 768), None)
        own = {k: v for k, v in head.state_dict().items() if k not in head.from_tower}
        released = released_keys(shared, "keys_univfd_fc_ckpt.txt")
        assert sorted(listed_keys(own)) == sorted(released)


class TestDeadChannels:
    """FerretNet's simplification leaves out what training killed, and nothing else."""

    def test_dead_channels_are_left_out(self):
        spec = find_detector("ferretnet-s")
        network = self.killed(seeded(spec.network(spec.variants[0])))
        images = make_probes(64, 64)
        compact = spec.simplify(network)
        assert_within(logits(compact, spec, images), logits(network, spec, images), 2e-5)
        assert parameters(compact) < 0.3 * parameters(network)
        for weight in compact.parameters():
            assert ((weight == 0) | (weight.abs() >= torch.finfo(torch.float32).tiny)).all()

    def test_the_released_network_is_a_tenth_of_its_file(self, shared: Path):
        spec = find_detector("ferretnet-s")
        network = spec.network(spec.variants[0]).eval()
        path = shared / "checkpoints" / spec.variants[0].file
        load_into(network, load_state_dict(path), source=path)
        assert parameters(spec.simplify(network)) < 0.1 * parameters(network)

    def test_a_network_without_life_still_has_a_logit(self):
        spec = find_detector("ferretnet-s")
        network = seeded(spec.network(spec.variants[0]))
        for tensor in network.parameters():
            if tensor.dim() == 4:
                tensor.data.fill_(1e-40)
        images = make_probes(32, 32)[:1]
        got = logits(spec.simplify(network), spec, images)
        np.testing.assert_allclose(got, logits(network, spec, images), rtol=1e-6)

    def killed(self, network: nn.Module) -> nn.Module:
        """Two channels of three to denormals, on both sides of each layer, as weight decay does.

        Only every other killed channel is also unread: the rest stay as constants, some of them
        positive, which zero padding makes visible at the border.
        """
        generator = torch.Generator().manual_seed(5)
        for key, weight in network.state_dict().items():
            if weight.dim() == 4:
                dead = torch.rand(weight.shape[0], generator=generator) < 0.66
                weight[dead] = 1e-39
                if weight.shape[1] > 3 and ".shortcut" not in key:
                    weight[:, torch.rand(weight.shape[1], generator=generator) < 0.33] = 1e-39
        return network


class TestRegistry:
    def test_every_file_with_a_record_is_there(self):
        assert set(detectors()) == {
            path.stem.replace("_", "-")
            for path in (REPOSITORY / "build/detectors").glob("*.py")
            if "\nSPEC = " in path.read_text()
        } - {"ferretnet"} | {"ferretnet-s"}
        assert list(detectors()) == sorted(detectors())
        for name, spec in detectors().items():
            assert find_detector(name) is spec
            assert len({variant.name for variant in spec.variants}) == len(spec.variants)

    def test_an_unknown_name_gets_close_ones(self):
        with pytest.raises(InputError, match=r"Did you mean ferretnet-s.*Known: .*npr"):
            find_detector("FerretNet_S")
        with pytest.raises(InputError, match=r"'zzz'\. Known: "):
            find_detector("zzz")

    def test_known_weights_are_recognised(self):
        spec = find_detector("tiny-ladeda")
        for variant in spec.variants:
            assert variant.fingerprint is not None
            identity = Identity(variant.fingerprint, git_blob="", sha256="")
            assert choose_variant(spec, None, identity) is variant
            assert choose_variant(spec, variant.name, identity) is variant

    def test_the_tensors_win_over_the_option(self):
        spec = find_detector("tiny-ladeda")
        with pytest.raises(InputError, match=r"forensynth.*--variant wildrf contradicts"):
            choose_variant(spec, "wildrf", Identity(str(spec.variants[0].fingerprint), "", ""))

    def test_a_released_file_is_known_by_its_git_blob(self):
        for variant in find_detector("npr").variants:
            identity = Identity(fingerprint="", git_blob=variant.git_blob, sha256="")
            assert choose_variant(find_detector("npr"), None, identity) is variant

    def test_unknown_weights_need_the_option_where_variants_differ(self):
        spec = find_detector("tiny-ladeda")
        with pytest.raises(InputError, match=r"--variant forensynth\|wildrf"):
            choose_variant(spec, None, UNKNOWN)
        assert choose_variant(spec, "wildrf", UNKNOWN).front_end == "left_diag"

    def test_unknown_weights_take_the_first_where_they_do_not(self):
        for name in ("npr", "ferretnet-s"):
            spec = find_detector(name)
            assert choose_variant(spec, None, UNKNOWN) is spec.variants[0]
        npr = find_detector("npr")
        assert choose_variant(npr, "progan-4class", UNKNOWN) is npr.variants[1]

    def test_an_unknown_variant_gets_close_ones(self):
        with pytest.raises(InputError, match=r"variant of tiny-ladeda.*Did you mean wildrf"):
            choose_variant(find_detector("tiny-ladeda"), "wild-rf", UNKNOWN)


def listed_keys(state) -> list[str]:
    """As the lists beside the golden data have them: key, shape, type."""
    return [
        f"{key}\t({', '.join(map(str, v.shape))}{',' * (v.dim() == 1)})\t{str(v.dtype)[6:]}"
        for key, v in state.items()
    ]


def released_keys(shared: Path, name: str) -> list[str]:
    return [line for line in (shared / "specs" / name).read_text().splitlines() if line]
