"""Parquet in: every kind of string, every row, in bounded memory; what is damaged is refused."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from trtdet.engine.parquet_table import count_names, is_parquet, read_names
from trtdet.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (trtdet[parquet])")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ["a.jpg", None, "été 写真.jpg", "a.jpg", "", "new\nline", "nul\0", " ", "a.jpg"]


def names_of(path: Path) -> list[str]:
    count = count_names(path, str(path))
    names = list(read_names(path, str(path)))
    assert len(names) == count
    return names


def write(path: Path, column, **options) -> Path:
    parquet.write_table(
        pyarrow.table({"label": range(len(column)), "filename": column}), path, **options
    )
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *(pyarrow.string(), pyarrow.large_string(), pyarrow.binary(), pyarrow.large_binary()),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_every_row_in_order_whatever_kind_of_string(tmp_path, kind):
    column = pyarrow.array([name and name.encode() for name in NAMES], pyarrow.binary())
    if pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type).dictionary_encode().cast(kind)
    path = write(tmp_path / "in.parquet", column.cast(kind), row_group_size=4)
    assert parquet.read_schema(path).field("filename").type == kind
    assert names_of(path) == [name or "" for name in NAMES]


def test_a_column_of_nulls_and_a_table_without_rows(tmp_path):
    assert names_of(write(tmp_path / "nulls.parquet", pyarrow.nulls(3))) == ["", "", ""]
    assert names_of(write(tmp_path / "none.parquet", pyarrow.array([], pyarrow.string()))) == []


def test_names_that_are_not_utf8_are_kept_as_a_csv_keeps_them(tmp_path):
    """Writers may call anything a string."""
    raw = pyarrow.array([b"l\xe4tin.jpg", b"\xff", b"\xed\xa0\x80"], pyarrow.binary())
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    path = write(tmp_path / "in.parquet", column)
    assert names_of(path) == ["l\udce4tin.jpg", "\udcff", "\udced\udca0\udc80"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": ["a.jpg"], "x": [1]}, r"no column 'filename' \(it has 'name', 'x'\)"),
        ({"filename": [1]}, "is int64, not a string"),
        ({"filename": [["a.jpg"]]}, "not a string"),
        ({"filename": [{"filename": "a.jpg"}]}, "not a string"),
        ({}, "no column 'filename'"),
    ],
)
def test_a_table_without_the_column_is_refused(tmp_path, table, message):
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(InputError, match=message):
        count_names(path, str(path))


def test_a_column_twice_is_refused(tmp_path):
    both = pyarrow.table([["a.jpg"], ["b.jpg"]], names=["filename", "filename"])
    parquet.write_table(both, tmp_path / "in.parquet")
    with pytest.raises(InputError, match="has several columns 'filename'"):
        count_names(tmp_path / "in.parquet", "in.parquet")


def test_what_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "in.parquet"
    for content in (
        b"",
        b"filename\na.jpg\n",
        b"PAR1",
        b"PAR1" * 100,
        b"PAR1" + b"\xff" * 8 + b"PAR1",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"^cannot read in.parquet as Parquet: "):
            count_names(path, "in.parquet")
    with pytest.raises(InputError, match=r"^cannot read none.parquet as Parquet: "):
        count_names(tmp_path / "none.parquet", "none.parquet")


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_file_is_refused_before_the_run_or_keeps_its_rows(tmp_path, compression):
    column = pyarrow.array([f"folder/{number}.jpg" for number in range(3000)])
    whole = write(tmp_path / "whole.parquet", column, compression=compression).read_bytes()
    rng, refused = random.Random(1), 0
    path = tmp_path / "damaged.parquet"
    for trial in range(150):
        data = bytearray(whole)
        if trial % 3 == 0:
            del data[rng.randrange(len(data)) :]
        elif trial % 3 == 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            start = rng.randrange(len(data))
            data[start : start + 50] = rng.randbytes(50)
        path.write_bytes(data)
        try:
            names = names_of(path)
        except InputError:
            refused += 1
        else:
            assert len(names) == 3000
    assert refused > 50


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(InputError, match=r"pip install 'trtdet\[parquet\]'"):
        count_names(tmp_path / "in.parquet", "in.parquet")


def test_a_table_is_parquet_by_its_name():
    assert is_parquet(Path("a/b.PARQUET"))
    assert not is_parquet(Path("a.parquet/b.csv"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_row_group_of_a_million_rows_takes_no_more_memory_than_many(tmp_path):
    def peak_kib(path: Path) -> int:
        program = (
            "import re, sys\n"
            "from pathlib import Path\n"
            "from trtdet.engine.parquet_table import count_names, read_names\n"
            "path = Path(sys.argv[1])\n"
            "assert count_names(path, 'in') == sum(1 for _ in read_names(path, 'in'))\n"
            r"print(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
        )
        return int(done.stdout)

    names = [f"{number:09}/{'a rather long name' * 5}.jpg" for number in range(1_000_000)]
    one, few = tmp_path / "one.parquet", tmp_path / "few.parquet"
    write(one, pyarrow.array(names), row_group_size=1_000_000, compression="none")
    write(few, pyarrow.array(names[:20_000]))
    assert parquet.read_metadata(one).num_row_groups == 1
    assert one.stat().st_size > 100_000_000
    assert peak_kib(one) < peak_kib(few) + 40_000
