"""Every detector in the registry: its record, its keys, its logits, and its simplified form.

A new detector is tested by what runs over the registry; its golden logits are one line below.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from torch import nn  # noqa: E402

from trtdet.build.checkpoint import Identity, identify, load_into, load_state_dict  # noqa: E402
from trtdet.build.detectors.registry import (  # noqa: E402
    choose_variant,
    detectors,
    find_detector,
)
from trtdet.build.detectors.spec import DetectorSpec, Variant  # noqa: E402
from trtdet.build.graph import EngineModule  # noqa: E402
from trtdet.build.probes import make_probes  # noqa: E402
from trtdet.engine.geometry import apply_geometry  # noqa: E402
from trtdet.errors import InputError  # noqa: E402

UNKNOWN = Identity(fingerprint="0" * 64, git_blob="0" * 40, sha256="0" * 64)

VARIANTS = [
    pytest.param(spec, variant, id=f"{spec.name} {variant.name}")
    for spec in detectors().values()
    for variant in spec.variants
]


class Golden(NamedTuple):
    """Where the logits of the authors' code are. Without a file, weights are the recipe's."""

    detector: str
    variant: str
    section: str
    logit: str
    file: str | None


GOLDEN = [
    Golden("ferretnet-s", "4cls", "ferretnet_s_real", "logit_centercrop256",
           "ferretnet-s-median-3.pth"),
    Golden("tiny-ladeda", "forensynth", "tiny_ladeda_forensynth_real_resize256", "NPR",
           "ForenSynth_Tiny_LaDeDa.pth"),
    Golden("tiny-ladeda", "wildrf", "tiny_ladeda_wildrf_real_resize256", "left_diag",
           "WildRF_Tiny_LaDeDa.pth"),
    Golden("npr", "npr", "npr_synth", "resize256_nocrop", None),
]  # fmt: skip

KEYS = {
    "ferretnet-s": "keys_ferretnet_s_ckpt.txt",
    "tiny-ladeda": "keys_tiny_ladeda_ckpt.txt",
    "npr": "keys_npr_resnet50.txt",
}


def seeded(network: nn.Module) -> nn.Module:
    """Random weights that keep activations near 1, as training does."""
    generator = torch.Generator().manual_seed(11)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.copy_(1.0 + 0.2 * torch.rand(tensor.shape, generator=generator))
        elif tensor.dim() > 1:
            scale = (2.0 / tensor[0].numel()) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            centre = 1.0 if key.endswith("weight") else 0.0
            tensor.copy_(centre + 0.2 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def logits(network: nn.Module, spec: DetectorSpec, images) -> np.ndarray:
    module = EngineModule(network, spec.normalization).eval()
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(i[None])).numpy() for i in images])[:, 0]


def parameters(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def assert_within(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    relative = np.abs(got - expected) / (1.0 + np.abs(expected))
    assert relative.max() <= tolerance, f"off by {relative.max():.2g} of 1 + |logit|"


@pytest.mark.parametrize(("spec", "variant"), VARIANTS)
class TestEveryVariant:
    def test_record(self, spec: DetectorSpec, variant: Variant):
        assert spec.licence
        assert variant.trained_on
        if not variant.file:  # our own, to be trained
            assert not variant.url
            assert variant.git_blob is variant.fingerprint is None
            return
        commit = spec.repository.split(" @ ")[1]
        assert re.fullmatch(r"[0-9a-f]{12}", commit)
        repository = spec.repository.split(" @ ")[0].removeprefix("github.com/")
        assert variant.url.startswith(f"https://github.com/{repository}/raw/{commit}/")
        assert variant.url.endswith(f"/{variant.file}")
        assert re.fullmatch(r"[0-9a-f]{40}", variant.git_blob)
        assert variant.fingerprint is None or re.fullmatch(r"[0-9a-f]{64}", variant.fingerprint)

    def test_simplified_is_the_same_function(self, spec: DetectorSpec, variant: Variant):
        network = seeded(spec.network(variant))
        before = copy.deepcopy(network.state_dict())
        images = make_probes(spec.geometry.height, spec.geometry.width)
        expected = logits(network, spec, images)
        simplified = spec.simplify(network)
        assert_within(logits(simplified, spec, images), expected, 2e-5)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in simplified.modules())
        assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)

    def test_batch_gives_the_logits_of_its_images(self, spec: DetectorSpec, variant: Variant):
        network = spec.simplify(seeded(spec.network(variant)))
        x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
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
        # Every fourth, for time: tests/test_golden.py sends all of them through engines.
        names = sorted(name for name in records if golden.logit in records[name])[::4]
        expected = np.array([records[name][golden.logit] for name in names])
        images = [self.decoded(shared / "golden/images" / name, spec) for name in names]
        for form in (network, spec.simplify(network)):
            assert_within(logits(form, spec, images), expected, spec.tolerance)

    def network(self, shared: Path, spec: DetectorSpec, golden: Golden) -> nn.Module:
        variant = next(each for each in spec.variants if each.name == golden.variant)
        network = spec.network(variant).eval()
        if golden.file is None:
            recipe = _module(shared / "golden/recipe.py")
            arrays = recipe.fill_state_dict({k: v.shape for k, v in network.state_dict().items()})
            tensors = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
        else:
            path = shared / "checkpoints" / golden.file
            tensors = load_state_dict(path)
            identity = identify(path, tensors)
            assert choose_variant(spec, None, identity) is variant
            assert identity.git_blob == variant.git_blob
        load_into(network, tensors, source=golden.section)
        return network

    def decoded(self, path: Path, spec: DetectorSpec) -> np.ndarray:
        out = np.empty((spec.geometry.height, spec.geometry.width, 3), np.uint8)
        with Image.open(path) as image:
            apply_geometry(spec.geometry, np.asarray(image.convert("RGB")), out)
        return out

    @pytest.mark.parametrize("name", KEYS)
    def test_keys_of_the_released_files(self, shared: Path, name: str):
        spec = find_detector(name)
        state = spec.network(spec.variants[0]).state_dict()
        own = [
            f"{key}\t({', '.join(map(str, v.shape))}{',' * (v.dim() == 1)})\t{str(v.dtype)[6:]}"
            for key, v in state.items()
        ]
        listed = (shared / "specs" / KEYS[name]).read_text().splitlines()
        assert sorted(own) == sorted(line for line in listed if line)


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
        assert {"ferretnet-s", "npr", "tiny-ladeda"} <= set(detectors())
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


def _module(path: Path):
    description = importlib.util.spec_from_file_location(path.stem, path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module
