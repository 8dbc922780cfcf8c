"""Which files are taken for a release, and which are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import trtdet.build.release
from trtdet.build.release import Release, accept, difference
from trtdet.errors import CheckpointError

CONTENT = b"weights" * 100
RELEASE = Release(
    "w.pth", "https://weights.invalid/w.pth", sha256=hashlib.sha256(CONTENT).hexdigest()
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT)
    return path


def test_the_git_blob_id_is_git_s_own(tmp_path):
    path = tmp_path / "greeting"
    path.write_bytes(b"hello\n")  # printf 'hello\n' | git hash-object --stdin
    release = Release("greeting", "", git_blob="ce013625030ba8dba906f756967f9e9ca394464a")
    assert difference(release, path) is None
    path.write_bytes(b"hello\r\n")
    assert difference(release, path) == (
        "7 bytes with git blob ef0493b275aa2080237f676d2ef6559246f56636"
    )


def test_sha256_decides_where_both_are_pinned(path):
    right = Release("w.pth", "", sha256=RELEASE.sha256, git_blob="0" * 40)
    assert difference(right, path) is None
    wrong = Release("w.pth", "", sha256="0" * 64)
    assert f"sha256 {RELEASE.sha256}" in str(difference(wrong, path))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE html>", "a web page"),
        (b"<html lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
    ],
)
def test_what_failed_downloads_leave_is_called_by_its_name(path, head, name):
    path.write_bytes(head)
    assert difference(RELEASE, path) == name


def test_nothing_is_verified_without_a_pin(path):
    with pytest.raises(CheckpointError, match="no pinned hash"):
        difference(Release("w.pth", "https://weights.invalid/w.pth"), path)


def test_another_file_is_moved_aside(path):
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"w\.pth\.refused: run the same command again"):
        accept(RELEASE, path)
    assert [each.name for each in path.parent.iterdir()] == ["w.pth.refused"]


def test_another_file_that_cannot_be_moved_is_refused_all_the_same(path):
    (path.parent / "w.pth.refused" / "in the way").mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"Delete it \(.*directory"):
        accept(RELEASE, path)


class TestLargeFile:
    """Bytes are changed behind the note's back, to tell whether they were read."""

    @pytest.fixture(autouse=True)
    def _large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trtdet.build.release, "NOTED_FROM_BYTES", len(CONTENT) - 1)

    def rewrite(self, path: Path, content: bytes, later_ns: int = 0) -> None:
        before = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))

    def test_it_is_hashed_once(self, path):
        accept(RELEASE, path)
        self.rewrite(path, CONTENT[::-1])
        assert difference(RELEASE, path) is None

    def test_it_is_hashed_again_after_a_change(self, path):
        accept(RELEASE, path)
        self.rewrite(path, CONTENT[::-1], later_ns=1_000_000)
        assert difference(RELEASE, path) is not None
        self.rewrite(path, CONTENT + b"!", later_ns=-1_000_000)
        assert difference(RELEASE, path) is not None

    def test_another_release_is_not_covered(self, path):
        accept(RELEASE, path)
        assert difference(Release("w.pth", "", sha256="0" * 64), path) is not None

    @pytest.mark.parametrize("note", ["", "[]", "{}", "\x00"])
    def test_a_damaged_note_is_none(self, path, note):
        (path.parent / "w.pth.verified").write_text(note)
        self.rewrite(path, CONTENT[::-1])
        assert difference(RELEASE, path) is not None

    def test_a_small_file_leaves_no_note(self, path, monkeypatch):
        monkeypatch.setattr(trtdet.build.release, "NOTED_FROM_BYTES", len(CONTENT))
        accept(RELEASE, path)
        assert [each.name for each in path.parent.iterdir()] == ["w.pth"]
