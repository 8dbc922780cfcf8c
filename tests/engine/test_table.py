from __future__ import annotations

import io
import os
import pickle
import socket
import threading
from pathlib import Path

import pytest

from trtdet.engine.confine import Confined, open_root
from trtdet.engine.table import open_table
from trtdet.errors import InputError

EMPTY = io.BytesIO()


def names_of(path: Path) -> list[str]:
    with open_table(str(path), EMPTY) as table:
        rows = list(table.rows())
        assert table.row_count == len(rows)
        assert [row.index for row in rows] == list(range(len(rows)))
        return [row.filename for row in rows]


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        names_of(tmp_path / "none.csv")


def test_names_resolve_against_the_folder_of_the_table(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("filename\nsub/a.jpg\n/abs/b.jpg\n")
    with open_table(str(path), EMPTY) as table:
        assert [table.resolve(row) for row in table.rows()] == [
            tmp_path / "sub/a.jpg",
            Path("/abs/b.jpg"),
        ]


def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    names = [f"{number}.jpg" for number in range(50_000)]
    text = "filename\n" + "\n".join(names)
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    assert names_of(pipe) == names
    writer.join()


def test_standard_input_resolves_against_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_table("-", io.BytesIO(b"filename\na.jpg\n")) as table:
        assert [table.resolve(row) for row in table.rows()] == [tmp_path / "a.jpg"]


def test_a_device_is_refused_and_not_copied():
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match=f"^{device} is a device"):
            names_of(Path(device))


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as file:
        file.bind("in.csv")
        with pytest.raises(InputError, match="cannot read"):
            names_of(Path("in.csv"))


def test_a_folder_and_a_pattern_are_rows(tmp_path, monkeypatch):
    names = ["  .jpg", "a.jpg", 'q"u,ote.jpg', "re\rturn\n.jpg", "z/l\udce4tin.jpg"]
    (tmp_path / "z").mkdir()
    for name in (*names, "notes.txt", "z/   "):
        (tmp_path / name).touch()
    with open_table(str(tmp_path), EMPTY) as table:
        assert (table.row_count, table.kind) == (5, "files found")
        assert [row.filename for row in table.rows()] == names
        assert [table.resolve(row) for row in table.rows()] == [tmp_path / name for name in names]
        written = table.path
    assert not written.exists()
    monkeypatch.chdir(tmp_path)
    with open_table("z/*", EMPTY) as table:  # a name of spaces is no blank line
        assert [row.filename for row in table.rows()] == ["z/   ", "z/l\udce4tin.jpg"]
        assert table.resolve(next(table.rows())) == tmp_path / "z/   "


def test_a_parquet_file_is_known_by_its_name_and_read_from_a_pipe(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [f"{number}.jpg" for number in range(50_000)]
    path, pipe = tmp_path / "in.Parquet", tmp_path / "pipe.parquet"
    parquet.write_table(pyarrow.table({"filename": names}), path)
    assert names_of(path) == names
    with open_table(str(path), EMPTY) as table:
        assert table.resolve(next(table.rows())) == tmp_path / "0.jpg"
        assert table.kind == "input"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
    writer.start()
    assert names_of(pipe) == names
    writer.join()


def test_with_a_root_names_are_beneath_it(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("filename\na.jpg\n/etc/passwd\n../b.jpg\n")
    (tmp_path / "root").mkdir()
    root = open_root(str(tmp_path / "root"))
    with open_table(str(path), EMPTY, root=root) as table:
        assert table.folder == root
        assert [table.resolve(row) for row in table.rows()] == [
            Confined(root, name) for name in ("a.jpg", "/etc/passwd", "../b.jpg")
        ]
        again = pickle.loads(pickle.dumps(table))  # another process may score the rows
        assert list(again.rows()) == list(table.rows())
