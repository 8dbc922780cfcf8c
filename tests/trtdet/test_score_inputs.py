"""`trtdet score` as a user runs it: folders, patterns, Parquet, --root, and rows that are traps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_rows, run_trtdet, write_rows


@pytest.fixture
def photos(tmp_path: Path, pictures: list[Path]) -> Path:
    """A folder of images, with one in a folder, one hidden, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    for number, name in enumerate(("b.png", "trip/a.jpg", ".hidden.png", "line\nbreak.png")):
        shutil.copy(pictures[number], folder / name)
    (folder / "notes.txt").write_text("none")
    return folder


def scores(path: Path) -> dict[str, str]:
    return dict(read_rows(path)[1:])


@pytest.fixture
def alone(photos, small_bundle, tmp_path) -> dict[str, str]:
    """The scores of these images by a plain CSV."""
    names = ["b.png", "line\nbreak.png", "trip/a.jpg"]
    table = write_rows(photos / "in.csv", names)
    run_trtdet("score", "--engine", small_bundle, table, tmp_path / "alone.csv")
    table.unlink()
    return scores(tmp_path / "alone.csv")


def test_a_folder(photos, alone, small_bundle, tmp_path):
    run_trtdet("score", "--engine", small_bundle, photos, tmp_path / "out.csv")
    assert scores(tmp_path / "out.csv") == alone
    assert list(scores(tmp_path / "out.csv")) == sorted(alone)


def test_a_pattern(photos, alone, small_bundle, tmp_path):
    for _ in range(2):  # the second time its own output is there, and no row
        run_trtdet(
            "score", "--engine", small_bundle, "photos/**/*.*g", "photos/out.png.csv", cwd=tmp_path
        )
    expected = {f"photos/{name}": logit for name, logit in alone.items()}
    assert scores(photos / "out.png.csv") == expected


def test_a_pattern_that_the_shell_expanded(photos, small_bundle, tmp_path):
    done = run_trtdet("score", "a.jpg", "b.jpg", "out.csv", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "3 names were given" in done.stderr
    assert "trtdet score 'photos/*.jpg' scores.csv" in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos/*.tiff", "no file matches photos/*.tiff"),
        ("empty", "there is no image in empty"),
        ("/dev/zero", "/dev/zero is a device"),
    ],
)
def test_nothing_to_score_is_one_clear_line(photos, small_bundle, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    done = run_trtdet(
        "score", "--engine", small_bundle, source, "out.csv", cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_traps_cost_their_rows(pictures, small_bundle, tmp_path):
    """Pipes, devices, sockets, loops and odd names: one row each, and no wait."""
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 1 << 40)
    shutil.copy(pictures[0], tmp_path / "line\nbreak\r.jpg")
    not_regular = "this is not a regular file but a pipe, a socket or a device"
    rows = {
        "line\nbreak\r.jpg": None,
        "fifo.jpg": not_regular,
        "socket.jpg": not_regular,
        "/dev/zero": not_regular,
        "/dev/full": not_regular,
        "/dev/stdin": not_regular,
        "loop.jpg": "the file cannot be read: Too many levels of symbolic links",
        "loop.jpg/a.jpg": "the file cannot be read: Too many levels of symbolic links",
        "folder.jpg": "this is a folder, not a file",
        "huge.jpg": "the file has 1,099,511,627,776 bytes, over the limit of 1,073,741,824; "
        "raise it with --max-bytes",
        "no\nfile.jpg": "file not found",
        "n" * 5000: "the file cannot be read: File name too long",
        "l\udce4tin.jpg": "file not found",
        "": "the row has no file name",
        "/proc/self/mem": "the file is empty",
    }
    if sys.version_info >= (3, 11):  # before, Python's csv refuses the table
        rows["nul\0.jpg"] = "the file name holds a NUL character"
    table = write_rows(tmp_path / "in.csv", rows)
    with (
        socket.socket(socket.AF_UNIX) as file,
        subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as silent,
    ):
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path is short
        file.bind("socket.jpg")
        os.chdir(here)
        done = run_trtdet(
            "score", "--engine", small_bundle, table, tmp_path / "out.csv",
            check=False, stdin=silent.stdout, timeout=60,
        )  # fmt: skip
        silent.kill()
    assert done.returncode == 3, done.stderr
    assert [row[0] for row in read_rows(tmp_path / "out.csv")[1:]] == list(rows)
    assert [bool(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]] == [
        reason is None for reason in rows.values()
    ]
    failed = {name: reason for name, reason in rows.items() if reason}
    assert dict(read_rows(tmp_path / "out.csv.errors.csv")[1:]) == failed


def test_a_root_confines_the_rows(photos, alone, small_bundle, tmp_path):
    (tmp_path / "outside.png").write_bytes((photos / "b.png").read_bytes())
    (photos / "link.png").symlink_to("../outside.png")
    (photos / "inner.png").symlink_to("b.png")
    whole = str(photos / "b.png")
    names = ["b.png", "../outside.png", whole, "link.png", "inner.png", "trip/../b.png"]
    table = write_rows(tmp_path / "in.csv", names)
    arguments = ("score", "--engine", small_bundle, "--root", photos, table)
    done = run_trtdet(*arguments, tmp_path / "out.csv", check=False)
    assert done.returncode == 3
    one = alone["b.png"]
    assert read_rows(tmp_path / "out.csv")[1:] == [
        [name, logit] for name, logit in zip(names, [one, "", "", "", one, ""], strict=True)
    ]
    up = "the name goes up with '..', which --root does not allow"
    assert read_rows(tmp_path / "out.csv.errors.csv")[1:] == [
        ["../outside.png", up],
        [whole, "the name is absolute, which --root does not allow"],
        ["link.png", "a symbolic link leads out of the --root folder"],
        ["trip/../b.png", up],
    ]


def test_a_root_confines_a_folder_and_a_pattern(photos, alone, small_bundle, tmp_path):
    arguments = ("score", "--engine", small_bundle, "--root", tmp_path / "photos")
    out = tmp_path / "out.csv"
    run_trtdet(*arguments, photos, out)
    assert scores(out) == alone
    run_trtdet(*arguments, photos / "trip", out)
    assert scores(out) == {"trip/a.jpg": alone["trip/a.jpg"]}
    run_trtdet(*arguments, "../photos/*/*.jpg", out, cwd=photos)
    assert scores(out) == {"trip/a.jpg": alone["trip/a.jpg"]}
    done = run_trtdet(*arguments, tmp_path, tmp_path / "out.csv", check=False)
    assert done.returncode == 2
    assert "is not in" in done.stderr
    done = run_trtdet("score", "--root", photos / "no", photos, out, check=False)
    assert done.returncode == 2
    assert re.search(r"--root .*/no cannot be used: No such file", done.stderr)


class TestParquet:
    """Both ways, and gone on with."""

    @pytest.fixture(autouse=True)
    def parquet(self):
        return pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (trtdet[parquet])")

    def test_in_and_out(self, photos, alone, small_bundle, tmp_path, parquet):
        import pyarrow

        names = [*alone, None, "missing.jpg", *alone]
        parquet.write_table(pyarrow.table({"filename": names}), photos / "in.parquet")
        arguments = ("score", "--engine", small_bundle, photos / "in.parquet")
        done = run_trtdet(*arguments, tmp_path / "out.parquet", check=False)
        assert done.returncode == 3
        assert "8 rows" in done.stderr
        assert f"the reasons are in {tmp_path / 'out.parquet'}" in done.stderr
        table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
        expected = [float(np.float32(logit)) for logit in alone.values()]
        assert table == {
            "filename": [*alone, "", "missing.jpg", *alone],
            "logit": [*expected, None, None, *expected],
            "reason": [None] * 3 + ["the row has no file name", "file not found"] + [None] * 3,
        }
        assert not (tmp_path / "out.parquet.errors.csv").exists()
        done = run_trtdet(*arguments, "-", check=False)
        assert done.stdout.startswith("filename,logit\n")

    @pytest.mark.full
    def test_killed_and_gone_on_with_it_ends_with_the_same_bytes(
        self, pictures, small_bundle, tmp_path
    ):
        names = [*map(str, pictures), "missing.jpg", "l\udce4tin.jpg", ""] * 60
        table = write_rows(tmp_path / "in.csv", names)
        arguments = ("score", "--engine", small_bundle, "--batch", "2", table)
        assert run_trtdet(*arguments, tmp_path / "whole.parquet", check=False).returncode == 3
        out = tmp_path / "out.parquet"
        interrupt(out, signal.SIGKILL, *arguments, out)
        assert not out.exists()
        assert list(tmp_path.glob(".out.parquet.*.tmp"))
        done = run_trtdet(*arguments, "--resume", out, check=False)
        assert done.returncode == 3
        assert re.search(r"; \d+ rows were there before", done.stderr)
        assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir() if path != table) == [
            "out.parquet",
            "whole.parquet",
        ]


def interrupt(out: Path, sent: int, *arguments: str | Path, **options) -> None:
    """Begin a run, and end it when a first record is in its journal."""
    command = [sys.executable, "-m", "trtdet", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    journal = out.with_name(out.name + ".journal")
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 900):
        time.sleep(0.01)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (-sent, 130), said


def test_a_folder_is_gone_on_with_while_it_is_the_same(pictures, small_bundle, tmp_path):
    folder, other = tmp_path / "photos", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
        for number in range(400):
            (each / f"{number}.png").symlink_to(pictures[1])
    out = tmp_path / "out.csv"
    arguments = ("score", "--engine", small_bundle, "--batch", "2")
    interrupt(out, signal.SIGINT, *arguments, folder, out)

    (folder / "new.png").symlink_to(pictures[1])
    done = run_trtdet(*arguments, "--resume", folder, out, check=False)
    assert done.returncode == 2
    assert re.search(r"what differs: files found \(\w{16} then, \w{16} now\)\.", done.stderr)
    (folder / "new.png").unlink()
    done = run_trtdet(*arguments, "--resume", other, out, check=False)
    assert done.returncode == 2
    assert f"what differs: folder ({folder} then, {other} now)" in done.stderr
    done = run_trtdet(*arguments, "--resume", "--root", folder, folder, out, check=False)
    assert "what differs: root (False then, True now)" in done.stderr

    done = run_trtdet(*arguments, "--resume", folder, out)
    assert re.search(r"; \d+ rows were there before", done.stderr)
    assert len(read_rows(out)) == 401


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_rows_of_a_run_take_the_memory_of_a_hundred_thousand(small_bundle, tmp_path):
    """Rows without an image: what is left is all that grows with their number."""

    def peak_kib(count: int) -> int:
        names = (f"missing/{number:07}.jpg" for number in range(count))
        table = write_rows(tmp_path / f"{count}.csv", names)
        program = (
            "import re, sys, atexit\n"
            "from pathlib import Path\n"
            "status = Path('/proc/self/status')\n"
            r"peak = lambda: print(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1])"
            "\natexit.register(peak)\n"
            "from trtdet.cli import main\n"
            "main()\n"
        )
        out = tmp_path / f"{count} out.csv"
        command = [sys.executable, "-c", program, "score", "--engine", small_bundle, table, out]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=540)
        assert done.returncode == 3, done.stderr
        assert f"{count} rows" in done.stderr
        with out.open("rb") as file:
            assert sum(1 for _ in file) == count + 1
        return int(done.stdout)

    assert peak_kib(1_000_000) < peak_kib(100_000) + 16_000
