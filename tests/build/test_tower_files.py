"""CLIP towers: every layout that people have gives the same tensors, and code never runs."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from tests.build.clip_towers import (  # noqa: E402
    LAYOUTS,
    SMALL,
    clip_model,
    clip_vision_model,
    equal,
    openai,
    pin,
    random_tower,
    save_safetensors,
    save_torch,
    save_torchscript,
)
from trtdet.build.checkpoint import fingerprint  # noqa: E402
from trtdet.build.tower_files import load_tower  # noqa: E402
from trtdet.errors import CheckpointError  # noqa: E402


class TestLayouts:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(
        ("save", "name"),
        [(save_torch, "weights.pt"), (save_safetensors, "model.safetensors")],
        ids=["torch", "safetensors"],
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_every_layout_gives_the_same_tensors(self, tmp_path, layout, save, name, dtype):
        expected = random_tower()
        given = LAYOUTS[layout]({key: tensor.to(dtype) for key, tensor in expected.items()})
        path = save(given, tmp_path / name)
        for _ in ("from the file", "from the store"):
            tower = load_tower(path)
            assert equal(tower, expected)
            assert tower.config == SMALL
            assert tower.name == name
            assert tower.identity.fingerprint == fingerprint(expected)
            assert tower.identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert tower.released is None

    @pytest.mark.parametrize("root", ["vision_model.", ""])
    def test_a_tower_without_projection(self, tmp_path, root):
        expected = random_tower()
        path = save_safetensors(clip_vision_model(expected, root), tmp_path / "model.safetensors")
        del expected["proj"]
        tower = load_tower(path)
        assert equal(tower, expected)
        assert tower.config.output is None

    def test_tensors_that_share_memory_or_are_strided(self, tmp_path):
        expected = random_tower()
        given = dict(expected)
        given["conv1.weight"] = given["conv1.weight"].contiguous(memory_format=torch.channels_last)
        given["ln_post.weight"] = expected["ln_post.weight"] = given["ln_pre.weight"]
        given["proj"] = given["proj"].t().contiguous().t()
        path = save_torch(given, tmp_path / "weights.pth")
        assert equal(load_tower(path), expected)
        assert equal(load_tower(path), expected)

    def test_a_known_file_is_named(self, tmp_path, monkeypatch):
        path = save_torch(random_tower(), tmp_path / "weights.pt")
        assert load_tower(path).released is None
        pin(monkeypatch, path, "A known file")
        assert load_tower(path).released == "A known file"

    def test_one_shard_of_one_is_a_whole_model(self, tmp_path):
        path = tmp_path / "model-00001-of-00001.safetensors"
        assert load_tower(save_safetensors(clip_model(random_tower()), path)).config == SMALL


class TestTorchScript:
    @pytest.fixture
    def archive(self, tmp_path) -> Path:
        tensors = {
            key: tensor if ".ln_" in key else tensor.half()
            for key, tensor in openai(random_tower()).items()
        }
        return save_torchscript(tensors, tmp_path / "ViT-L-14.pt")

    def test_a_pinned_archive_is_loaded_without_a_warning(self, archive, monkeypatch):
        pin(monkeypatch, archive, "OpenAI CLIP small")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tower = load_tower(archive)
        assert equal(tower, random_tower())
        assert tower.released == "OpenAI CLIP small"

    def test_another_archive_is_never_run(self, archive, monkeypatch):
        def run(*_: object, **__: object) -> None:
            pytest.fail("an unknown archive was run")

        monkeypatch.setattr(torch.jit, "load", run)
        with pytest.raises(CheckpointError, match=r"TorchScript.*code.*not run.*state_dict\(\)"):
            load_tower(archive)

    def test_its_state_dict_is_what_the_message_asks_for(self, archive, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            tensors = torch.jit.load(archive, map_location="cpu").state_dict()
        path = save_torch(tensors, tmp_path / "tensors.pt")
        assert equal(load_tower(path), random_tower())

    def test_an_archive_that_this_torch_cannot_load(self, archive, monkeypatch):
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("Unknown builtin op: aten::old\nand a long trace")

        pin(monkeypatch, archive)
        monkeypatch.setattr(torch.jit, "load", fail)
        with pytest.raises(CheckpointError, match=r"aten::old\).*an older torch"):
            load_tower(archive)
