"""What was compiled here is loaded, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trtdet.engine.built import is_ours, read_code, record_built, write_code
from trtdet.engine.store import store_folder

CODE = b"cubin" * 100
DIGEST = hashlib.sha256(CODE).hexdigest()


def test_what_the_store_wrote_is_read_again(tmp_path):
    path = tmp_path / "kernels" / "sm_86-0123.cubin"
    assert read_code(path) is None
    write_code(path, CODE)
    assert read_code(path) == CODE
    assert is_ours(DIGEST)
    write_code(path, CODE)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert [each.name for each in (store_folder() / "built").iterdir()] == [DIGEST]


def test_what_came_from_elsewhere_is_not_read_but_by_leave(tmp_path):
    lines: list[str] = []
    path = tmp_path / "foreign.cubin"
    path.write_bytes(CODE)
    assert read_code(path, on_line=lines.append) is None
    assert lines == [f"{path} was not compiled here: it is code, so it is not loaded"]
    assert read_code(path, trust=True) == CODE
    assert not is_ours(DIGEST)  # one leave is not for ever


def test_a_changed_file_is_somebody_elses(tmp_path):
    path = tmp_path / "a.cubin"
    write_code(path, CODE)
    path.write_bytes(CODE + b"!")
    assert read_code(path) is None


def test_it_is_the_bytes_that_count_not_their_place(tmp_path):
    write_code(tmp_path / "a.plan", CODE)
    (tmp_path / "copy.plan").write_bytes(CODE)
    assert read_code(tmp_path / "copy.plan") == CODE


def test_what_is_checked_is_what_is_returned(tmp_path, monkeypatch):
    """The file is read once: whoever swaps it afterwards changes nothing."""
    path, reads = tmp_path / "a.cubin", []
    write_code(path, CODE)
    read_bytes = Path.read_bytes

    def swapped_afterwards(self):
        content = read_bytes(self)
        if self == path:
            reads.append(content)
            path.write_bytes(b"malice")
        return content

    monkeypatch.setattr(Path, "read_bytes", swapped_afterwards)
    assert read_code(path) == CODE
    assert reads == [CODE]


def test_another_hash_than_expected_is_damage(tmp_path):
    lines: list[str] = []
    write_code(tmp_path / "a.plan", CODE)
    assert read_code(tmp_path / "a.plan", expected=DIGEST) == CODE
    assert read_code(tmp_path / "a.plan", True, lines.append, expected="0" * 64) is None
    assert lines == [f"{tmp_path / 'a.plan'} is damaged: it has another hash than its record says"]


def test_what_cannot_be_read_is_said(tmp_path):
    lines: list[str] = []
    assert read_code(tmp_path, on_line=lines.append) is None
    assert lines == [f"{tmp_path} cannot be read: Is a directory"]


@pytest.mark.parametrize("name", ["", "../default", "0" * 63, "G" * 64, "0" * 64 + "\n"])
def test_a_marker_is_a_hash_and_no_path(name):
    assert not is_ours(name)
    with pytest.raises(ValueError, match="is no sha256"):
        record_built(name)


def test_another_store_trusts_nothing_of_this_one(tmp_path, monkeypatch):
    write_code(tmp_path / "a.cubin", CODE)
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "another home"))
    assert read_code(tmp_path / "a.cubin") is None


def test_many_processes_record_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from trtdet.engine.built import write_code\n"
        "for number in range(50):\n"
        "    write_code(Path(sys.argv[1]) / f'{number}.cubin', bytes([number]) * 1000)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 3
    assert len(list((store_folder() / "built").iterdir())) == 50
    for number in range(50):
        assert read_code(tmp_path / f"{number}.cubin") == bytes([number]) * 1000


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path):
    stray, fresh, other = (
        tmp_path / name for name in (".a.plan.x1.tmp", ".b.plan.x2.tmp", "notes.tmp")
    )
    for path in (stray, fresh, other):
        path.write_bytes(b"half")
        os.utime(path, (time.time(), time.time() - (10 if path == fresh else 7200)))
    write_code(tmp_path / "c.plan", CODE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [fresh.name, other.name, "c.plan"]  # another process may be writing the fresh one
    )


def test_a_store_that_cannot_be_written_refuses_the_code(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "home"))
    with pytest.raises(OSError, match="home"):
        write_code(tmp_path / "a.plan", CODE)
    assert not (tmp_path / "a.plan").exists()
