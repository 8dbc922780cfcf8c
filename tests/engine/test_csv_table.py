"""CSV: every row with its own spelling, whatever the bytes; what is no CSV is refused, quickly."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trtdet.engine.csv_table import MAX_FIELD_CHARS, MAX_ROW_CHARS, count_names, read_names
from trtdet.errors import InputError


def names_of(path: Path) -> list[str]:
    count = count_names(path, str(path))
    names = list(read_names(path, str(path)))
    assert len(names) == count
    return names


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


def names_in(content: bytes) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(content)
        file.flush()
        return names_of(Path(file.name))


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    others=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_any_names_come_back(names, end, mark, others):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    # A second column keeps a row of spaces from being a blank line.
    writer.writerows([*["x"] * others, name, ""] for name in ["filename", *names])
    assert names_in(text.getvalue().encode("utf-8-sig" if mark else "utf-8")) == names


PIECES = [
    *(b'"', b",", b";", b"\n", b"\r", b"\r\n", b"\0", b" ", b"\t", b"\x1a", b"\xc2\x85"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe4"),
    *(b"a.jpg", b'"a.jpg"', b"filename"),
]
HEADS = [b"filename\n", b"filename,filename\n", b"x,filename\r\n", b"filename", b""]


@given(
    head=st.sampled_from(HEADS),
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=40),
)
@example(head="filename\na.jpg\n".encode("utf-16-le"), pieces=[])
@example(head="filename\na.jpg\n".encode("utf-16"), pieces=[])
@example(head="filename\na.jpg\n".encode("utf-32-be"), pieces=[])
@example(head=b"filename,filename\na,b\n", pieces=[])
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_table_or_refused(head, pieces):
    """No other exception, the same names twice, and a row for each line where none is quoted."""
    content = head + b"".join(pieces)
    try:
        names = names_in(content)
    except InputError:
        return
    if b'"' not in content:
        text = content.decode("utf-8-sig", "surrogateescape")
        lines = [line for line in io.StringIO(text, newline=None) if line.strip("\n")]
        assert len(names) == sum(not line.isspace() for line in lines) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"filename\n" + b"a" * 10_000_000 + b"\n", "field larger than field limit"),
        (b'filename\n"' + b"a\n" * 5_000_000, "field larger than field limit"),
        (b"filename\na.jpg" + b",b" * (MAX_ROW_CHARS // 2) + b"\n", "more than 16,777,216 char"),
        (b"filename\n" + b'"\n",' * (MAX_ROW_CHARS // 4 + 1), "more than 16,777,216 characters"),
        (b"\xff" * (MAX_ROW_CHARS + 1), "more than 16,777,216 characters"),
    ],
    ids=["long field", "open quote", "long line", "quoted line breaks", "no table"],
)
def test_rows_without_end_are_refused(content, message):
    with pytest.raises(InputError, match=message):
        names_in(content)


def test_the_longest_row_is_a_row():
    field = b"b" * MAX_FIELD_CHARS
    many = MAX_ROW_CHARS // (MAX_FIELD_CHARS + 1) - 1
    assert names_in(b"filename\na.jpg" + (b"," + field) * many + b"\nb.jpg\n") == ["a.jpg", "b.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_of_zeros_takes_no_memory(tmp_path):
    path = tmp_path / "zeros.csv"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    program = (
        "import sys, re\n"
        "from pathlib import Path\n"
        "from trtdet.engine.csv_table import count_names\n"
        "from trtdet.errors import InputError\n"
        "try: count_names(Path(sys.argv[1]), 'zeros')\n"
        "except InputError as error: print(error)\n"
        r"print(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    )
    message, kilobytes = done.stdout.splitlines()
    assert "zeros is not a well-formed CSV" in message
    assert int(kilobytes) < 200_000
