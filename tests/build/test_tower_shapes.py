"""A tower's sizes are read from its shapes, and other shapes are no tower."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from tests.build.clip_towers import (  # noqa: E402
    random_tower,
)
from trtdet.build.tower_shapes import TowerConfig, tower_config, tower_shapes  # noqa: E402
from trtdet.errors import CheckpointError  # noqa: E402


class TestConfig:
    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("vitl14", TowerConfig(1024, 24, 16, 14, 224, 768)),
            ("vitb32", TowerConfig(768, 12, 12, 32, 224, 512)),
        ],
    )
    def test_openais_towers(self, shared, name, config):
        lines = (shared / f"specs/keys_clip_{name}_visual.txt").read_text().splitlines()
        rows = [line.split("\t") for line in lines]
        shapes = {key: tuple(map(int, re.findall(r"\d+", shape))) for key, shape, _ in rows}
        assert tower_shapes(config) == shapes
        tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        assert tower_config(tensors) == config

    @pytest.mark.parametrize("output", [None, 16])
    def test_small_towers(self, output):
        config = TowerConfig(64, 2, 1, 8, 32, output)
        assert tower_config(random_tower(config)) == config
        assert config.tokens == 17

    def test_ln_post_may_be_absent_where_nothing_follows_it(self):
        tensors = random_tower()
        del tensors["ln_post.weight"], tensors["ln_post.bias"]
        with pytest.raises(CheckpointError, match=r"2 missing: ln_post\.weight, ln_post\.bias"):
            tower_config(tensors)
        del tensors["proj"]
        assert tower_config(tensors).output is None
        tensors["ln_post.bias"] = torch.zeros(128)
        with pytest.raises(CheckpointError, match=r"1 missing: ln_post\.weight"):
            tower_config(tensors)

    @pytest.mark.parametrize(
        ("key", "shape", "words"),
        [
            ("conv1.weight", (128, 4, 4, 4), "4 channels by 4×4"),
            ("conv1.weight", (128, 3, 4, 5), "3 channels by 4×5"),
            ("conv1.weight", (128, 3, 4), "conv1.weight is .*4 axes"),
            ("conv1.weight", (96, 3, 4, 4), "96 channels"),
            ("conv1.weight", (1280, 3, 4, 4), "1280 channels"),
            ("positional_embedding", (11, 128), "11 positions"),
            ("positional_embedding", (1, 128), "1 positions"),
            ("positional_embedding", (0, 128), "0 positions"),
            ("proj", (128,), "proj is .*2 axes"),
            ("proj", (64, 32), r"proj \[64, 32\], needed \[128, 32\]"),
            ("ln_pre.bias", (1,), r"1 of another shape: ln_pre\.bias \[1\], needed \[128\]"),
            ("transformer.resblocks.2.mlp.c_fc.weight", (384, 128), r"resblocks\.2\.mlp\.c_fc"),
            ("transformer.resblocks.4.ln_1.bias", (128,), r"unexpected: .*resblocks\.4\.ln_1"),
            ("fc.weight", (1, 32), r"1 unexpected: fc\.weight"),
        ],
    )
    def test_other_shapes_are_no_tower(self, key, shape, words):
        with pytest.raises(CheckpointError, match=words):
            tower_config({**random_tower(), key: torch.zeros(shape)})

    def test_a_tower_without_blocks_or_stem(self):
        tensors = random_tower()
        stem = {key: tensors[key] for key in tensors if not key.startswith("transformer.")}
        with pytest.raises(CheckpointError, match="no blocks"):
            tower_config(stem)
        with pytest.raises(CheckpointError, match=r"w\.pt .*conv1\.weight is missing"):
            tower_config({}, source="w.pt")
