"""--root: what is refused, what is followed, and what a link that comes and goes can reach."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
from pathlib import Path

import pytest

from trtdet.engine import confine
from trtdet.engine.confine import Confined, open_root
from trtdet.engine.decode import read_image_file
from trtdet.errors import ImageError, InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with files, links of every kind, and what is no file."""
    folder = tmp_path / "top"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/in.jpg").write_bytes(b"inside")
    (folder / "..name.jpg").write_bytes(b"dots")
    outside = tmp_path / "topmost"  # the root's name, and more
    outside.mkdir()
    (outside / "out.jpg").write_bytes(b"secret")
    for name, target in {
        "a/near.jpg": "b/in.jpg",
        "a/up.jpg": "../a/b/in.jpg",
        "whole.jpg": folder / "a/b/in.jpg",
        "chain.jpg": "whole.jpg",
        "folder": "a/b",
        "out.jpg": outside / "out.jpg",
        "out-chain.jpg": "out.jpg",
        "out-relative.jpg": "../topmost/out.jpg",
        "out-folder": outside,
        "out-missing.jpg": outside / "none.jpg",
        "parent": "..",
        "self.jpg": "self.jpg",
        "dangling.jpg": "none.jpg",
        "proc.jpg": "/proc/self/root",
    }.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as file:
        here = os.open(".", os.O_RDONLY)
        os.chdir(folder)  # a socket's path is short
        file.bind("socket.jpg")
        os.fchdir(here)
        os.close(here)
    return folder


def read(folder: Path, name: str) -> bytes:
    return read_image_file(Confined(open_root(str(folder)), name))


@pytest.mark.parametrize(
    "name",
    [
        *("a/b/in.jpg", "./a//b/in.jpg", "a/near.jpg", "a/up.jpg", "whole.jpg", "chain.jpg"),
        "folder/in.jpg",
    ],
)
def test_what_is_inside_is_read(folder, name):
    assert read(folder, name) == b"inside"
    assert read(folder, "..name.jpg") == b"dots"


LEADS_OUT = "^a symbolic link leads out of the --root folder$"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("{root}/a/b/in.jpg", "^the name is absolute, which --root does not allow$"),
        ("/etc/passwd", "the name is absolute"),
        ("//etc/passwd", "the name is absolute"),
        ("../topmost/out.jpg", r"^the name goes up with '\.\.', which --root does not allow$"),
        ("a/../a/b/in.jpg", "goes up"),
        ("a/b/in.jpg/..", "goes up"),
        ("..", "goes up"),
        ("out.jpg", LEADS_OUT),
        ("out-chain.jpg", LEADS_OUT),
        ("out-relative.jpg", LEADS_OUT),
        ("out-folder/out.jpg", LEADS_OUT),
        ("out-missing.jpg", LEADS_OUT),  # what is not outside is nobody's business either
        ("out-folder/none.jpg", LEADS_OUT),
        ("parent/topmost/out.jpg", LEADS_OUT),
        ("proc.jpg", LEADS_OUT),
        ("parent/top/a/b/none.jpg", "^file not found$"),
        ("none.jpg", "^file not found$"),
        ("dangling.jpg", "^file not found$"),
        ("whole.jpg/x.jpg", "^file not found$"),
        ("self.jpg", "levels of symbolic links"),
        ("a", "^this is a folder"),
        (".", "^this is a folder"),
        ("parent/top", "^this is a folder"),
        ("fifo.jpg", "pipe, a socket or a device"),
        ("socket.jpg", "pipe, a socket or a device"),
        ("a\0b", "NUL character"),
        ("\ud800.jpg", "cannot be encoded"),
        ("n" * 300, "cannot be read: File name too long"),
        ("d/" * 5000 + "x.jpg", "file not found|File name too long"),
    ],
)
def test_what_leads_out_costs_its_row(folder, name, reason):
    with pytest.raises(ImageError, match=reason):
        read(folder, name.format(root=folder))


def test_a_root_that_is_a_link_is_what_it_leads_to(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    root = open_root("link")
    monkeypatch.chdir("/")
    assert root == folder.resolve()
    assert read_image_file(Confined(root, "a/up.jpg")) == b"inside"


@pytest.mark.parametrize("name", ["none", "top/..name.jpg", "top/fifo.jpg", "top/self.jpg"])
def test_a_root_that_is_no_folder_is_refused(folder, name):
    with pytest.raises(InputError, match=r"^--root .* cannot be used: "):
        open_root(str(folder.parent / name))


@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/in.jpg"])
def test_what_turns_into_a_link_after_the_check_is_not_opened(folder, monkeypatch, swapped):
    outside = folder.parent / "topmost"
    (outside / "b").mkdir()
    for name in ("in.jpg", "b/in.jpg"):
        (outside / name).write_bytes(b"secret")
    real = os.path.realpath

    def swap(path):
        resolved = real(path)
        (folder / swapped).rename(folder / "aside")
        target = outside / "in.jpg" if swapped.endswith(".jpg") else outside
        (folder / swapped).symlink_to(target)
        return resolved

    confined = Confined(open_root(str(folder)), "a/b/in.jpg")
    monkeypatch.setattr(confine.os.path, "realpath", swap)
    with pytest.raises(ImageError, match=r"file not found|symbolic links"):
        read_image_file(confined)
    assert (folder / swapped).is_symlink()


def test_a_link_that_comes_and_goes_never_shows_what_is_outside(folder):
    """A second thread swaps the folder for a link, and back, as quickly as it can."""
    (folder.parent / "topmost/in.jpg").write_bytes(b"secret")
    (folder / "swap").mkdir()
    (folder / "swap/in.jpg").write_bytes(b"inside")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            (folder / "swap").rename(folder / "aside")
            (folder / "swap").symlink_to("../topmost")
            (folder / "swap").unlink()
            (folder / "aside").rename(folder / "swap")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        confined = Confined(open_root(str(folder)), "swap/in.jpg")
        for _ in range(3000):
            try:
                seen.add(read_image_file(confined))
            except ImageError as reason:
                seen.add(str(reason))
    finally:
        stop.set()
        swapper.join()
    assert b"inside" in seen
    assert b"secret" not in seen


def test_no_descriptor_stays_open(folder):
    def count():
        return len(os.listdir("/dev/fd"))  # noqa: PTH208

    before = count()
    for name in ("a/b/in.jpg", "a/b/none.jpg", "none/in.jpg", "out.jpg", "fifo.jpg", "a", ".."):
        for _ in range(3):
            with contextlib.suppress(ImageError):
                read(folder, name)
    assert count() == before


def test_it_is_no_path_and_goes_to_other_processes(folder):
    """What opens paths, and does not know it, fails; it does not leave the root."""
    confined = Confined(open_root(str(folder)), "out.jpg")
    for opens in (open, os.stat, Path):
        with pytest.raises(TypeError):
            opens(confined)
    assert pickle.loads(pickle.dumps(confined)) == confined
