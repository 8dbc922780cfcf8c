"""Parquet out: its columns and bytes, whole or not there at all, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trtdet.engine import parquet_sink
from trtdet.engine.sink import check_output, leftovers, open_sink, reasons_path
from trtdet.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (trtdet[parquet])")
parquet = pytest.importorskip("pyarrow.parquet")


def write_some(target: Path, failed_logit: float | None = None) -> None:
    with open_sink(str(target), failed_logit, ("rine", "univfd")) as sink:
        sink.write("a, b.jpg", np.float32([1.5, -2e-9]), None)
        sink.write("no.jpg", None, "file not found")
        sink.write("a, b.jpg", np.float32([0.1, 3e38]), None)
        sink.write("", None, "the row has no file name")
        assert sink.failures == 2


def test_names_logits_and_reasons(tmp_path):
    write_some(tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    table = parquet.read_table(tmp_path / "out.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("filename", "string"),
        ("rine", "float"),
        ("univfd", "float"),
        ("reason", "string"),
    ]
    assert table.to_pydict() == {
        "filename": ["a, b.jpg", "no.jpg", "a, b.jpg", ""],
        "rine": [1.5, None, float(np.float32(0.1)), None],
        "univfd": [float(np.float32(-2e-9)), None, float(np.float32(3e38)), None],
        "reason": [None, "file not found", None, "the row has no file name"],
    }


def test_a_failed_row_can_carry_a_number(tmp_path):
    write_some(tmp_path / "out.parquet", failed_logit=0.5)
    table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["univfd"][1::2] == [0.5, 0.5]
    assert table["reason"][1] == "file not found"


def test_a_number_that_is_no_float32_is_refused(tmp_path):
    with pytest.raises(InputError, match="--failed-logit 1e\\+39 is no float32"):
        check_output(str(tmp_path / "out.parquet"), "in.csv", 1e39)
    check_output(str(tmp_path / "out.csv"), "in.csv", 1e39)


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path):
    target = tmp_path / "out.parquet"
    with open_sink(str(target), None) as sink:
        sink.write("l\udce4tin.jpg", np.float32([1]), None)
        sink.write("\udcff", None, "cannot \udce4")
        sink.write("nul\0\nline", None, "x")
    table = parquet.read_table(target)
    table.validate(full=True)
    assert table["filename"].to_pylist() == ["l\\xe4tin.jpg", "\\xff", "nul\0\nline"]
    assert table["reason"].to_pylist() == [None, "cannot \\xe4", "x"]


def test_a_table_without_rows(tmp_path):
    with open_sink(str(tmp_path / "out.PARQUET"), None):
        pass
    table = parquet.read_table(tmp_path / "out.PARQUET")
    assert (table.num_rows, table.column_names) == (0, ["filename", "logit", "reason"])


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_some(tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_row_groups_end_at_fixed_places(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_sink, "ROWS_PER_GROUP", 100)
    monkeypatch.setattr(parquet_sink, "CHARS_PER_GROUP", 1000)
    target = tmp_path / "out.parquet"
    with open_sink(str(target), None) as sink:
        for number in range(250):
            sink.write("n", np.float32([number]), None)
        for number in range(6):
            sink.write("n" * 400, np.float32([number]), None)
    data = parquet.read_metadata(target)
    groups = [data.row_group(number).num_rows for number in range(data.num_row_groups)]
    assert groups == [100, 100, 53, 3]
    assert parquet.read_table(target)["logit"].to_pylist() == [*range(250), *range(6)]


def test_a_run_that_breaks_leaves_what_was_there(tmp_path):
    target = tmp_path / "out.parquet"
    target.write_text("the last good run")
    with pytest.raises(RuntimeError), open_sink(str(target), None) as sink:  # noqa: PT012
        sink.write("a.jpg", np.float32([1]), None)
        assert len(leftovers(target)) == 1
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert target.read_text() == "the last good run"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_raises_what_the_system_says(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised:  # noqa: PT012, SIM117
        with Path("/dev/full").open("wb", buffering=0) as full:
            with parquet_sink.ParquetSink(full, ("logit",), None) as sink:
                sink.write("a.jpg", np.float32([1]), None)
    assert raised.value.errno == 28


def test_what_is_in_the_way_is_refused_as_for_a_csv(tmp_path):
    source = tmp_path / "in.parquet"
    source.touch()
    target = tmp_path / "out.parquet"
    (tmp_path / "out.parquet.errors.csv").mkdir()  # is never written
    check_output(str(target), str(source))
    with pytest.raises(InputError, match="overwrite the input"):
        check_output(str(source), str(source))
    target.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(str(target), str(source))
    assert reasons_path(target) == target
    assert reasons_path(tmp_path / "out.csv") == tmp_path / "out.csv.errors.csv"


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(InputError, match=r"pip install 'trtdet\[parquet\]'"):
        check_output(str(tmp_path / "out.parquet"), "in.csv")
    check_output(str(tmp_path / "out.csv"), "in.csv")


COPY = """
import re, sys
from pathlib import Path
import numpy as np
from trtdet.engine.sink import open_sink
from trtdet.engine.table import open_table
with open_table(sys.argv[1], sys.stdin.buffer) as table, open_sink(sys.argv[2], None) as sink:
    for row in table.rows():
        failed = row.index % 10 == 0
        sink.write(row.filename, None if failed else [np.float32(row.index)], "file not found")
    assert table.row_count == row.index + 1 == int(sys.argv[3])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("many", [400_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_many_rows_take_no_more_memory_than_some(tmp_path, kind, many):
    """Read twice and written once, as a run does."""

    def peak_kib(count: int) -> int:
        source, target = tmp_path / f"{count}.{kind}", tmp_path / f"out {count}.{kind}"
        names = [f"folder/of/a/table/{number:09}.jpg" for number in range(count)]
        if kind == "parquet":
            parquet.write_table(pyarrow.table({"filename": names}), source)
        else:
            source.write_text("filename\n" + "\n".join(names))
        done = subprocess.run(
            [sys.executable, "-c", COPY, source, target, str(count)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
        return int(done.stdout)

    assert peak_kib(many) < peak_kib(150_000) + 8_000
