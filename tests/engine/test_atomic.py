from __future__ import annotations

from pathlib import Path

import pytest

from trtdet.engine.atomic import atomic_folder


def fill(folder: Path, text: str) -> None:
    with atomic_folder(folder) as new:
        (new / "file").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path):
    fill(tmp_path / "a", "old")
    (tmp_path / "a/stale").touch()
    fill(tmp_path / "a", "new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    assert (tmp_path / "a/file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    fill(tmp_path / "a", "old")
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", "new")
    assert (tmp_path / "a/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_linked_folder_stays_a_link(tmp_path):
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
