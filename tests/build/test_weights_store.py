"""The store's weights, and where each detector's come from."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from trtdet.build.detectors.registry import detectors, find_detector
from trtdet.build.detectors.spec import Variant
from trtdet.build.download import MIRROR_VARIABLE, source_url
from trtdet.build.weights_store import (
    CLIP_TOWERS,
    fetch_release,
    releases_of,
    weights_folder,
)
from trtdet.errors import CheckpointError, DownloadError, InputError

RELEASES = [
    *CLIP_TOWERS.values(),
    *(each.release for spec in detectors().values() for each in spec.variants if each.release),
]


def test_no_two_releases_share_a_file_of_the_store():
    files = [release.file.lower() for release in RELEASES]
    assert len(files) > len(CLIP_TOWERS)
    assert sorted(set(files)) == sorted(files)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.file)
def test_every_release_can_be_fetched(release, monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]*", release.file)
    assert source_url(release) == release.url


@pytest.mark.parametrize("name", CLIP_TOWERS)
def test_the_address_of_a_tower_holds_its_hash(name):
    assert f"/{CLIP_TOWERS[name].sha256}/" in CLIP_TOWERS[name].url


def test_the_first_variant_the_named_one_or_every_one():
    spec = find_detector("tiny-ladeda")
    first, second = (variant.release for variant in spec.variants)
    assert releases_of(spec) == [first]
    assert releases_of(spec, "wildrf") == [second]
    assert releases_of(spec, every=True) == [first, second]
    with pytest.raises(InputError, match="Known: forensynth, wildrf"):
        releases_of(spec, "wildfr")


def test_every_variant_that_a_program_can_fetch():
    spec = find_detector("tiny-ladeda")
    theirs = Variant("drive", "faces", file="d.pth", url="https://drive.invalid/d")
    mixed = replace(spec, variants=(theirs, *spec.variants))
    assert releases_of(mixed, every=True) == releases_of(spec, every=True)
    with pytest.raises(DownloadError, match=r"from https://drive\.invalid/d, then `trtdet build"):
        releases_of(mixed)
    with pytest.raises(DownloadError, match=r"drive\.invalid"):
        releases_of(replace(spec, variants=(theirs,)), every=True)


def test_a_network_that_nobody_trained_says_how_to():
    with pytest.raises(DownloadError, match=r"trtdet train LABELS\.CSV --model cooccurrence "):
        releases_of(find_detector("cooccurrence"))


class TestPutByHand:
    def test_the_file_is_verified_and_the_network_left_alone(self, shared, monkeypatch):
        monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
        (release,) = releases_of(find_detector("ferretnet-s"))
        weights_folder().mkdir()
        path = weights_folder() / release.file
        path.write_bytes((shared / "checkpoints" / release.file).read_bytes())
        path.chmod(0o444)
        assert fetch_release(release, lambda _done, _total: None) == path
        assert list(weights_folder().iterdir()) == [path]

    def test_another_file_is_refused(self, monkeypatch):
        monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
        tower = CLIP_TOWERS["clip-vit-b32"]
        weights_folder().mkdir()
        (weights_folder() / tower.file).write_bytes(b"<html>404</html>")
        with pytest.raises(CheckpointError, match=r"this is a web page\. It is kept as .*refused"):
            fetch_release(tower, lambda _done, _total: None)
        assert [path.name for path in weights_folder().iterdir()] == ["ViT-B-32.pt.refused"]
