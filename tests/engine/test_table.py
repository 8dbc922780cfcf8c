from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from trtdet.engine.table import open_table
from trtdet.errors import InputError

EMPTY = io.BytesIO()


def names_of(path: Path) -> list[str]:
    with open_table(str(path), EMPTY) as table:
        rows = list(table.rows())
        assert table.row_count == len(rows)
        assert [row.index for row in rows] == list(range(len(rows)))
        return [row.filename for row in rows]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"filename\na.jpg\nb.png\n", ["a.jpg", "b.png"]),
        (b"filename\r\na.jpg\r\nb.png", ["a.jpg", "b.png"]),
        (b"\xef\xbb\xbffilename\na.jpg\n", ["a.jpg"]),
        (b"label,filename,x\n1,a.jpg,\n0,b.jpg,2\n", ["a.jpg", "b.jpg"]),
        (b"filename\n\na.jpg\n\n\nb.jpg\n\n", ["a.jpg", "b.jpg"]),
        (b'filename\n"a, b.jpg"\n"say ""hi"".jpg"\n', ["a, b.jpg", 'say "hi".jpg']),
        (b'filename\n"two\nlines.jpg"\n', ["two\nlines.jpg"]),
        (b"filename\n#1.jpg\n lead.jpg\ntrail .jpg\n", ["#1.jpg", " lead.jpg", "trail .jpg"]),
        ("filename\nfoto été 写真.jpg\n".encode(), ["foto été 写真.jpg"]),
        (b"filename\na.jpg\na.jpg\n", ["a.jpg", "a.jpg"]),
        (b"x,filename\n1\n2,b.jpg\n", ["", "b.jpg"]),
        (b"filename\nl\xe4tin.jpg\n", ["l\udce4tin.jpg"]),
        (b" filename \na.jpg\n", ["a.jpg"]),
        (b"filename\n   \na.jpg\n\t\n", ["a.jpg"]),
        (b"filename\n", []),
    ],
)
def test_every_row_in_order_with_its_own_spelling(tmp_path, content, names):
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    assert names_of(path) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"name,label\na.jpg,1\n", r"no column 'filename' \(its first line gives 'name', 'label'"),
        (b"filename;label\na.jpg;1\n", "separate columns with commas"),
        ("filename\na.jpg\n".encode("utf-16"), "UTF-16"),
        (b'filename\n"a.jpg\nb.jpg\n', "line 3"),
        (b'filename\n"a".jpg\n', "line 2"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        names_of(path)


def test_a_missing_table_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        names_of(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot read"):
        names_of(tmp_path)


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
