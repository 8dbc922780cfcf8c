"""Folders and patterns: which names, in which order, and what loops and links come to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from trtdet.engine.confine import open_root
from trtdet.engine.listing import image_suffixes, is_listed, list_names
from trtdet.errors import InputError

FILES = [
    "a.jpg",
    "a-b.PNG",
    "b.txt",
    "none",
    ".hidden.jpg",
    ".folder/c.jpg",
    "a/x.webp",
    "a/.hidden.jpg",
    "a/deep/er/y.jpeg",
    "a/deep/y.jpg",
    "new\nline.jpg",
    "  .jpg",
    "l\udce4tin.jpg",
    "[x].jpg",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many names, a loop of folders, and links to a file, a folder and nothing."""
    folder = tmp_path / "tree"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/o.jpg").touch()
    (folder / "a/loop").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "file.jpg").symlink_to(tmp_path / "outside/o.jpg")
    (folder / "self.jpg").symlink_to("self.jpg")
    return folder


def test_a_folder_gives_its_images_sorted(tree):
    names = list(list_names(str(tree)))
    assert names == sorted(names)
    assert names == [
        *("  .jpg", "[x].jpg", "a-b.PNG", "a.jpg", "a/deep/er/y.jpeg", "a/deep/y.jpg", "a/x.webp"),
        *("file.jpg", "l\udce4tin.jpg", "new\nline.jpg", "self.jpg"),
    ]
    linked = tree.parent / "link to it"
    linked.symlink_to(tree)
    assert list(list_names(str(linked))) == names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["  .jpg", "[x].jpg", "a.jpg", "file.jpg", "l\udce4tin.jpg", "new\nline.jpg",
                   "self.jpg"]),
        ("?.*", ["a.jpg", "b.txt"]),
        ("*", ["  .jpg", "[x].jpg", "a-b.PNG", "a.jpg", "b.txt", "file.jpg", "l\udce4tin.jpg",
               "new\nline.jpg", "none", "self.jpg"]),
        ("**/y.*", ["a/deep/er/y.jpeg", "a/deep/y.jpg"]),
        ("**/**/y.jpg", ["a/deep/y.jpg"]),
        ("**/deep/**/*.jp*", ["a/deep/er/y.jpeg", "a/deep/y.jpg"]),
        ("a/**", ["a/deep/er/y.jpeg", "a/deep/y.jpg", "a/x.webp"]),
        ("*/*.webp", ["a/x.webp"]),
        ("*/*/y.jpg", ["a/deep/y.jpg"]),
        ("[ab].*", ["a.jpg", "b.txt"]),
        ("[!ab].*", []),
        ("[[]x].jpg", ["[x].jpg"]),
        (".*", [".hidden.jpg"]),
        (".folder/*", [".folder/c.jpg"]),
        (".f*/*", [".folder/c.jpg"]),
        ("linked/*", ["linked/o.jpg"]),  # it is written out
        ("link*/*", []),
        ("a/loop/a/*.webp", ["a/loop/a/x.webp"]),
        ("no/*.jpg", []),
        ("a.jpg/*", []),
        ("*/", []),
    ],
)  # fmt: skip
def test_a_pattern_gives_what_matches(tree, monkeypatch, pattern, names):
    monkeypatch.chdir(tree)
    if not names:
        with pytest.raises(InputError, match="no file matches"):
            list(list_names(pattern))
        return
    assert list(list_names(pattern)) == names
    absolute = list(list_names(f"{tree}/{pattern}"))
    assert absolute == [f"{tree}/{name}" for name in names]


def test_a_file_of_that_name_is_no_pattern(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert not is_listed("[x].jpg")
    assert not is_listed("a.jpg")
    assert is_listed("[y].jpg")
    assert is_listed("a")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="there is no image in"):
        list(list_names(str(tmp_path)))


def test_the_output_of_the_run_is_not_listed(tree):
    output = tree / "s.csv"
    for name in ("s.csv", "s.csv.journal", "s.csv.errors.csv", "s.csv2", "a/s.csv"):
        (tree / name).touch()
    listed = set(list_names(f"{tree}/**", output=output))
    assert {str(tree / "s.csv2"), str(tree / "a/s.csv")} <= listed
    assert not {str(tree / "s.csv"), str(tree / "s.csv.journal")} & listed
    with pytest.raises(InputError, match=r"a.jpg is an image's name: give another"):
        list(list_names(str(tree), output=tree / "a.jpg"))


def test_a_folder_that_cannot_be_read_is_a_row(tree, monkeypatch):
    real = os.scandir

    def deny(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", deny)
        names = list(list_names(str(tree)))
    assert [name for name in names if name.startswith("a/")] == ["a/deep/", "a/x.webp"]


def test_a_folder_deeper_than_python_recurses(tmp_path):
    deep = tmp_path
    try:
        for _ in range(1100):
            deep = deep / "d"
            deep.mkdir()
        for path in (deep / "i.png", tmp_path / "d/d/i.png"):
            path.touch()
        names = [f"{'d/' * 1100}i.png", "d/d/i.png"]
        assert list(list_names(str(tmp_path))) == names
        assert list(list_names(str(tmp_path), open_root(str(tmp_path)))) == names
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil.rmtree recurses


def test_with_a_root_names_begin_there_and_no_link_leads_out(tree, monkeypatch):
    root = open_root(str(tree))
    inner = list(list_names(str(tree / "a"), root))
    assert inner == ["a/deep/er/y.jpeg", "a/deep/y.jpg", "a/x.webp"]
    monkeypatch.chdir(tree / "a/deep")
    assert list(list_names("../*.webp", root)) == ["a/x.webp"]
    assert list(list_names("**/*.jp*g", root)) == ["a/deep/er/y.jpeg", "a/deep/y.jpg"]
    assert list(list_names(".", root)) == ["a/deep/er/y.jpeg", "a/deep/y.jpg"]
    assert list(list_names(str(tree / "a/loop/a"), root)) == inner
    for outside in (str(tree.parent), f"{tree}/linked", f"{tree}/linked/*", "/*", "../../../*"):
        with pytest.raises(InputError, match="with --root, what is listed lies in it"):
            list(list_names(outside, root))
    assert "a/x.webp" in list(list_names(str(tree), open_root(str(tree / "a/loop"))))


def test_a_folder_that_turns_into_a_link_is_not_entered(tree, monkeypatch):
    """Between the look at its name and the look into it."""
    real = os.scandir

    def swap(folder):
        entries = real(folder)
        if not (tree / "a").is_symlink():
            (tree / "a").rename(tree / "b")
            (tree / "a").symlink_to(tree.parent / "outside")
        return entries

    root = open_root(str(tree))
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", swap)
        names = list(list_names(str(tree), root))
    assert (tree / "a").is_symlink()
    assert not [name for name in names if name.endswith("o.jpg")]


def test_suffixes_are_those_of_images_that_are_decoded():
    suffixes = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".ppm", ".mpo"} <= suffixes
    assert not {".pdf", ".eps", ".h5", ".mpg", ".csv", ".txt", ""} & suffixes
    registered = Image.registered_extensions()
    assert all(registered[suffix] in {*Image.OPEN, "MPO"} for suffix in suffixes)
