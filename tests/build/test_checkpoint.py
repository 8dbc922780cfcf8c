"""Weights files: what is read, what is refused, and what makes two files the same weights."""

from __future__ import annotations

import pickle
import re
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import safetensors.torch  # noqa: E402
from torch import nn  # noqa: E402

from trtdet.build.checkpoint import fingerprint, load_into, load_state_dict  # noqa: E402
from trtdet.errors import CheckpointError  # noqa: E402


def small_network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in small_network().state_dict().items()}


WRAPPINGS: dict[str, Callable] = {
    "bare": lambda t: t,
    "ordered": OrderedDict,
    "model": lambda t: {"model": t},
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "nested": lambda t: {"model": {"state_dict": t}, "optimizer": {"lr": 0.1}},
    "data parallel": lambda t: {f"module.{key}": tensor for key, tensor in t.items()},
    "nested and data parallel": lambda t: {"model": {f"module.{k}": v for k, v in t.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_wrapped_file_is_the_same_weights(tmp_path, tensors, wrapping, zipped):
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[wrapping](tensors), path, _use_new_zipfile_serialization=zipped)
    loaded = load_state_dict(path)
    assert list(loaded) == list(tensors)
    assert fingerprint(loaded) == fingerprint(tensors)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_are_known_by_suffix_or_content(tmp_path, tensors, name):
    safetensors.torch.save_file(tensors, tmp_path / name)
    assert fingerprint(load_state_dict(tmp_path / name)) == fingerprint(tensors)


def test_a_prefix_that_only_some_keys_have_is_part_of_them(tmp_path, tensors):
    mixed = {"module.0.weight": tensors["0.weight"], "2.bias": tensors["2.bias"]}
    torch.save(mixed, tmp_path / "weights.pth")
    assert set(load_state_dict(tmp_path / "weights.pth")) == set(mixed)


class TestFingerprint:
    def test_order_and_counters_do_not_matter(self, tensors):
        counted = {**tensors, "1.num_batches_tracked": torch.tensor(414000)}
        assert fingerprint(dict(reversed(counted.items()))) == fingerprint(tensors)
        without = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
        assert fingerprint(without) == fingerprint(tensors)

    def test_memory_layout_does_not_matter(self, tensors):
        strided = tensors["0.weight"].contiguous(memory_format=torch.channels_last)
        assert fingerprint({**tensors, "0.weight": strided}) == fingerprint(tensors)

    def test_every_bit_type_shape_and_name_matters(self, tensors):
        weight = tensors["0.weight"]
        nudged = weight.clone()
        nudged.view(torch.int32)[0, 0, 0, 0] ^= 1
        renamed = {("x" + key): tensor for key, tensor in tensors.items()}
        others = [
            renamed,
            {**tensors, "0.weight": nudged},
            {**tensors, "0.weight": weight.double()},
            {**tensors, "0.weight": weight.reshape(12, 1, 3, 3)},
        ]
        prints = {fingerprint(each) for each in [tensors, *others]}
        assert len(prints) == 5

    def test_every_type_has_bytes(self):
        for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.bool):
            assert len(fingerprint({"scalar": torch.ones((), dtype=dtype)})) == 64


class TestRefusedFiles:
    def refuse(self, path: Path, words: str) -> None:
        with pytest.raises(CheckpointError, match=words) as refusal:
            load_state_dict(path)
        assert str(path) in str(refusal.value)

    def test_nothing_there(self, tmp_path):
        self.refuse(tmp_path / "absent.pth", "does not exist")
        self.refuse(tmp_path, "is a folder")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n",
                "git lfs pull",
            ),
            (b"\n<!DOCTYPE html><html></html>", "web page.*/raw/"),
            (b"\xef\xbb\xbf<HTML>", "web page"),
            (b"404: Not Found", "no checkpoint"),
            (b"\x89PNG\r\n\x1a\n" + bytes(64), "no checkpoint"),
            (b"\x80\x02garbage", "damaged"),
            (b"\x40" + bytes(7) + b'{"a": "not a header"}', "safetensors.*damaged"),
        ],
    )
    def test_another_kind_of_file(self, tmp_path, content, words):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        self.refuse(path, words)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_a_cut_file(self, tmp_path, tensors, zipped, kept):
        path = tmp_path / "weights.pth"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        self.refuse(path, "damaged")

    def test_a_cut_safetensors_file(self, tmp_path, tensors):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(safetensors.torch.save(tensors)[:-8])
        self.refuse(path, "damaged")

    def test_a_whole_module_is_refused_by_name(self, tmp_path):
        torch.save(small_network(), tmp_path / "weights.pth")
        self.refuse(tmp_path / "weights.pth", r"Sequential.*run code.*model\.state_dict\(\)")

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_code_in_a_pickle_does_not_run(self, tmp_path, protocol):
        class Payload:
            def __reduce__(self):
                return subprocess.call, (["touch", str(tmp_path / "ran")],)

        for name, write in (
            ("zip", lambda path: torch.save({"model": Payload()}, path)),
            ("plain", lambda path: path.write_bytes(pickle.dumps(Payload(), protocol))),
        ):
            path = tmp_path / name
            write(path)
            self.refuse(path, "run code|damaged")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [{}, {"model": {}}, {"epoch": 3}, [1.0], torch.ones(2)])
    def test_no_named_tensors(self, tmp_path, content):
        torch.save(content, tmp_path / "weights.pth")
        self.refuse(tmp_path / "weights.pth", "no named tensors")

    def test_other_values_among_the_tensors(self, tmp_path, tensors):
        torch.save({**tensors, "epoch": 3}, tmp_path / "weights.pth")
        self.refuse(tmp_path / "weights.pth", "other values: epoch")


class TestLoadInto:
    def test_values_arrive(self, tensors):
        network = small_network()
        nn.init.zeros_(network[0].weight)
        load_into(network, tensors, source="w.pth")
        for key, value in network.state_dict().items():
            assert torch.equal(value, tensors[key])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_float_types_become_float32(self, tensors, dtype):
        network = small_network()
        load_into(network, {k: _as(v, dtype) for k, v in tensors.items()}, source="w.pth")
        for key, value in network.state_dict().items():
            assert value.dtype == tensors[key].dtype
            assert torch.equal(value, _as(tensors[key], dtype).to(value.dtype))

    def test_only_the_counter_may_be_absent(self, tensors):
        del tensors["1.num_batches_tracked"]
        load_into(small_network(), tensors, source="w.pth")
        del tensors["1.running_var"]
        with pytest.raises(CheckpointError, match=r"w\.pth.*1 missing: 1\.running_var.*--model"):
            load_into(small_network(), tensors, source="w.pth")

    def test_every_kind_of_difference_is_listed(self, tensors):
        tensors["0.weight"] = tensors["0.weight"][:2]
        tensors["2.weight"] = torch.ones((1, 4, 1, 1), dtype=torch.int8)
        tensors["extra"] = tensors.pop("2.bias")
        with pytest.raises(CheckpointError) as refusal:
            load_into(small_network(), tensors, source="w.pth")
        for words in (
            "1 missing: 2.bias",
            "1 unexpected: extra",
            "2 of another shape: 0.weight [2, 3, 3, 3], needed [4, 3, 3, 3]",
            "2.weight [1, 4, 1, 1] of integers, needed [1, 4, 1, 1]",
        ):
            assert words in str(refusal.value)

    def test_a_long_list_is_cut(self, tensors):
        many = {f"other.{n}": torch.ones(1) for n in range(50)}
        with pytest.raises(CheckpointError, match=r"50 unexpected: .*other\.7, and 42 more"):
            load_into(small_network(), {**tensors, **many}, source="w.pth")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
    def test_values_that_float32_cannot_hold_are_refused(self, tensors, value):
        network = small_network()
        before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        tensors["1.bias"] = torch.tensor([0.0, value, 0.0, 0.0], dtype=torch.float64)
        with pytest.raises(CheckpointError, match=re.escape("float32: 1.bias")):
            load_into(network, tensors, source="w.pth")
        assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)


def _as(tensor, dtype):
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
