"""A table of any kind as numbered rows."""

from __future__ import annotations

import pytest

from tests.conftest import write_rows as write_csv
from trtdet.engine.ray_rows import open_rows, write_rows
from trtdet.errors import InputError

pa = pytest.importorskip("pyarrow", reason="Ray's rows are Parquet (trtdet[ray])")

NAMES = ["a.png", "", "b\nc.png", "\udcff.png", "é.png", "a.png"]
ENCODED = [name.encode("utf-8", "surrogateescape") for name in NAMES]


def rows_of(source) -> tuple[list[bytes], str, str]:
    with open_rows(str(source), "out") as rows:
        found = list(rows.encoded())
        assert found == list(rows.encoded())  # they can be gone through again
        assert len(found) == rows.count
        return found, rows.folder, rows.sha256()


def test_a_table_gives_bytes_and_the_folder_that_they_are_relative_to(tmp_path):
    table = write_csv(tmp_path / "in.csv", NAMES)
    for source in (table, table.as_uri()):
        assert rows_of(source)[:2] == (ENCODED, str(tmp_path))


def test_so_does_one_behind_an_url(tmp_path):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    write_csv(tmp_path / "in.csv", NAMES)
    memory.pipe("/tables/in.csv", (tmp_path / "in.csv").read_bytes())
    assert rows_of("memory://tables/in.csv")[:2] == (ENCODED, "memory://tables")
    pa.parquet = pytest.importorskip("pyarrow.parquet")
    pa.parquet.write_table(pa.table({"filename": ["a", None]}), tmp_path / "in.parquet")
    memory.pipe("/tables/in.parquet", (tmp_path / "in.parquet").read_bytes())
    assert rows_of("memory://tables/in.parquet")[0] == [b"a", b""]
    with pytest.raises(InputError, match=r"cannot read memory://tables/none\.csv"):
        rows_of("memory://tables/none.csv")


def test_rows_are_numbered_across_files(tmp_path):
    from pyarrow.fs import LocalFileSystem
    from pyarrow.parquet import read_table

    with open_rows(str(write_csv(tmp_path / "in.csv", NAMES)), "out") as rows:
        write_rows(rows, LocalFileSystem(), str(tmp_path / "rows"), 4)
    assert [path.name for path in sorted((tmp_path / "rows").iterdir())] == [
        "rows-000000.parquet",
        "rows-000001.parquet",
    ]
    written = read_table(tmp_path / "rows").to_pydict()
    assert written == {"index": list(range(6)), "filename": ENCODED}


def test_the_digest_tells_tables_apart(tmp_path):
    digests = {
        rows_of(write_csv(tmp_path / "in.csv", names))[2]
        for names in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""])
    }
    assert len(digests) == 4
