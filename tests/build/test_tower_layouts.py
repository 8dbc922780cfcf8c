"""Files that are no whole CLIP tower are refused, and nothing of them is stored."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from tests.build.clip_towers import (  # noqa: E402
    LAYOUTS,
    clip_model,
    openai,
    random_tower,
    save_safetensors,
    save_torch,
    text_tower,
)
from trtdet.build.tower_files import load_tower  # noqa: E402
from trtdet.errors import CheckpointError  # noqa: E402


class TestRefusedFiles:
    def refuse(self, path: Path, words: str) -> None:
        with pytest.raises(CheckpointError, match=words) as refusal:
            load_tower(path)
        assert str(path) in str(refusal.value)
        assert not (Path(os.environ["TRTDET_HOME"]) / "towers").exists()

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_missing_layer(self, tmp_path, layout, number):
        tensors = {
            key: tensor
            for key, tensor in LAYOUTS[layout](random_tower()).items()
            if not re.search(rf"(resblocks|layers)\.{number}\.", key)
        }
        path = save_torch(tensors, tmp_path / "weights.pt")
        if number == 2:  # a shorter tower
            assert load_tower(path).config.layers == 2
        else:
            self.refuse(path, rf"of a CLIP ViT\. Tensors 1[26] missing: .*s\.{number}\.")

    def test_a_missing_piece_has_the_files_own_name(self, tmp_path):
        tensors = clip_model(random_tower())
        del tensors["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
        path = save_safetensors(tensors, tmp_path / "model.safetensors")
        self.refuse(path, r"1 missing: vision_model\.encoder\.layers\.1\.self_attn\.k_proj\.bias")

    @pytest.mark.parametrize(
        ("layout", "key"),
        [
            ("bare", "fc.weight"),
            ("bare", "token_embedding.weight"),
            ("bare", "transformer.resblocks.99999999999.ln_1.bias"),
            ("openai", "visual.attn_pool.query"),
            ("openai", "visual.transformer.resblocks.01.ln_1.bias"),
            ("openai", "transformer.resblocks.0.adapter.weight"),
            ("openai", "text_decoder.ln_final.weight"),
            ("inside a model", "fc.weight"),
            ("inside a model", "token_embedding.weight"),
            ("CLIPModel", "vision_model.head.probe"),
            ("CLIPModel", "classifier.weight"),
            ("CLIPModel", "vision_model.embeddings.position_ids.x"),
        ],
    )
    def test_foreign_keys(self, tmp_path, layout, key):
        tensors = {**LAYOUTS[layout](random_tower()), key: torch.zeros(1)}
        path = save_torch(tensors, tmp_path / "weights.pt")
        self.refuse(path, f"1 unexpected: {re.escape(key)}\\.")

    def test_a_wrong_shape(self, tmp_path):
        tensors = openai(random_tower())
        tensors["visual.ln_pre.weight"] = torch.zeros(127)
        path = save_torch(tensors, tmp_path / "weights.pt")
        self.refuse(path, r"1 of another shape: ln_pre\.weight \[127\], needed \[128\]")

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("encoder.layers.0.self_attn.q_proj.weight", (127, 128)),
            ("encoder.layers.0.self_attn.q_proj.weight", ()),
            ("embeddings.class_embedding", ()),
        ],
    )
    def test_shapes_that_cannot_be_put_together(self, tmp_path, name, shape):
        tensors = clip_model(random_tower())
        tensors[f"vision_model.{name}"] = torch.zeros(shape)
        self.refuse(save_torch(tensors, tmp_path / "w.bin"), f"{re.escape(name)}.* have the shapes")

    def test_pieces_that_only_together_have_the_right_size(self, tmp_path):
        tensors = clip_model(random_tower())
        for part, width in (("q", 127), ("k", 129)):
            key = f"vision_model.encoder.layers.0.self_attn.{part}_proj.bias"
            tensors[key] = torch.zeros(width)
        self.refuse(save_torch(tensors, tmp_path / "w.bin"), r"\[\[127\], \[129\], \[128\]\]")

    @pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300])
    def test_values_that_float32_cannot_hold(self, tmp_path, value):
        tensors = openai(random_tower())
        tensors["visual.proj"] = tensors["visual.proj"].double()
        tensors["visual.proj"][3, 4] = value
        self.refuse(save_torch(tensors, tmp_path / "w.pt"), "NaN or infinite .*: proj")

    @pytest.mark.parametrize(
        ("tensor", "words"),
        [
            (torch.zeros(128, dtype=torch.int8), "int8"),
            (torch.zeros(128, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
            (torch.zeros(128).to_sparse(), "no dense tensor"),
        ],
        ids=["int8", "float8", "sparse"],
    )
    def test_quantized_and_sparse_tensors(self, tmp_path, tensor, words):
        tensors = {**random_tower(), "ln_pre.bias": tensor}
        self.refuse(save_torch(tensors, tmp_path / "w.pt"), rf"ln_pre\.bias.*{words}")

    @pytest.mark.parametrize("number", [1, 2])
    def test_shards(self, tmp_path, number):
        path = tmp_path / f"model-0000{number}-of-00002.safetensors"
        save_safetensors(clip_model(random_tower()), path)
        self.refuse(path, r"one of several files.*save_pretrained\(out, max_shard_size")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 5}, "weight_map": {}}))
        self.refuse(index, "their index")

    @pytest.mark.parametrize(
        ("tensors", "words"),
        [
            (text_tower(), "text tower .*alone"),
            ({"text_model.embeddings.token_embedding.weight": torch.ones(5, 4)}, "text tower"),
            ({"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64)}, "bn1.weight"),
            (
                {**text_tower(), "visual.layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)},
                "no visual tower of a CLIP ViT",
            ),
        ],
        ids=["openai text", "transformers text", "resnet", "clip resnet"],
    )
    def test_other_models(self, tmp_path, tensors, words):
        self.refuse(save_safetensors(tensors, tmp_path / "model.safetensors"), words)

    def test_what_a_failed_download_leaves(self, tmp_path):
        path = tmp_path / "ViT-L-14.pt"
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n")
        self.refuse(path, "git lfs pull")
        save_torch(random_tower(), path)
        path.write_bytes(path.read_bytes()[:-9000])
        self.refuse(path, "damaged")
        self.refuse(tmp_path / "absent.pt", "does not exist")

    @pytest.mark.parametrize("cut", [10, 5000])
    def test_a_cut_safetensors_file(self, tmp_path, cut):
        path = save_safetensors(random_tower(), tmp_path / "model.safetensors")
        path.write_bytes(path.read_bytes()[:-cut])
        self.refuse(path, "damaged")

    def test_code_in_a_pickle_does_not_run(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return subprocess.call, (["touch", str(tmp_path / "ran")],)

        torch.save({**random_tower(), "x": Payload()}, tmp_path / "weights.pt")
        self.refuse(tmp_path / "weights.pt", "run code")
        assert not (tmp_path / "ran").exists()
