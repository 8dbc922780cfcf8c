"""A tower is converted once; a damaged conversion is made again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import safetensors.torch  # noqa: E402

from tests.build.clip_towers import (  # noqa: E402
    equal,
    openai,
    random_tower,
    save_torch,
)
from trtdet.build import tower_files, tower_store  # noqa: E402
from trtdet.build.checkpoint import fingerprint  # noqa: E402
from trtdet.build.tower_files import load_tower  # noqa: E402
from trtdet.build.tower_store import tower_path  # noqa: E402


class TestStore:
    @pytest.fixture
    def source(self, tmp_path) -> Path:
        return save_torch(openai(random_tower()), tmp_path / "weights.pt")

    @pytest.fixture
    def stored(self, source) -> Path:
        return tower_path(load_tower(source).identity.sha256)

    @pytest.fixture
    def no_reading(self, monkeypatch) -> None:
        def read(*_: object) -> None:
            pytest.fail("the source's tensors were read")

        monkeypatch.setattr(tower_files, "load_state_dict", read)

    def test_the_stored_file_is_canonical_safetensors(self, source, stored):
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        assert stored == Path(os.environ["TRTDET_HOME"]) / f"towers/{sha256}.safetensors"
        tensors = safetensors.torch.load_file(stored)
        expected = random_tower()
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)
        with safetensors.safe_open(stored, "pt") as file:
            assert file.metadata() == {
                "schema": "trtdet-tower-1",
                "source_name": "weights.pt",
                "source_sha256": sha256,
                "fingerprint": fingerprint(expected),
            }
        assert [path.name for path in stored.parent.iterdir()] == [stored.name]

    def test_it_is_read_in_place_of_the_source(self, source, stored, no_reading):
        written = (stored.stat().st_ino, stored.stat().st_mtime_ns)
        moved = source.rename(source.with_name("another name.pt"))
        tower = load_tower(moved)
        assert equal(tower, random_tower())
        assert tower.name == "another name.pt"
        assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == written

    def test_a_changed_tower_does_not_change_the_store(self, source, stored):
        content = stored.read_bytes()
        for tensor in load_tower(source).tensors.values():
            tensor.zero_()
        assert stored.read_bytes() == content
        assert equal(load_tower(source), random_tower())

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[:-4],
            lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
            lambda content: content.replace(b"trtdet-tower-1", b"trtdet-tower-0"),
            lambda content: content.replace(b'"__metadata__"', b'"__metadatA__"'),
            lambda content: b"\xff" * 64,
        ],
        ids=["empty", "cut", "a bit", "another schema", "no metadata", "noise"],
    )
    def test_a_damaged_one_is_written_again(self, source, stored, damage):
        content = stored.read_bytes()
        stored.write_bytes(damage(content))
        assert stored.read_bytes() != content
        assert equal(load_tower(source), random_tower())
        assert stored.read_bytes() == content

    def test_one_of_another_source_is_not_taken(self, tmp_path, stored):
        other = random_tower()
        other["proj"] += 1
        path = save_torch(other, tmp_path / "other.pt")
        tower_path(hashlib.sha256(path.read_bytes()).hexdigest()).write_bytes(stored.read_bytes())
        assert equal(load_tower(path), other)

    def test_a_store_that_cannot_be_written(self, source):
        (Path(os.environ["TRTDET_HOME"]) / "towers").write_text("not a folder")
        for _ in range(2):
            assert equal(load_tower(source), random_tower())

    def test_a_full_disk(self, source, monkeypatch):
        def fill(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tower_store, "_write_safetensors", fill)
        assert equal(load_tower(source), random_tower())
        assert list((Path(os.environ["TRTDET_HOME"]) / "towers").iterdir()) == []

    def test_a_name_that_is_no_unicode(self, source, request):
        odd = source.rename(source.with_name(os.fsdecode(b"w\xff.pt")))
        stored = tower_path(load_tower(odd).identity.sha256)
        assert safetensors.safe_open(stored, "pt").metadata()["source_name"] == "w?.pt"
        request.getfixturevalue("no_reading")
        assert load_tower(odd).name == os.fsdecode(b"w\xff.pt")
