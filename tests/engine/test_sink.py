from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from trtdet.engine.sink import check_output, format_logit, open_sink
from trtdet.errors import InputError


def test_a_logit_reads_back_to_the_same_float32():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    read = np.array([float(format_logit(value)) for value in values]).astype(np.float32)
    assert np.array_equal(read.view(np.uint32), values.view(np.uint32))


def test_rows_in_order_and_reasons_apart(tmp_path):
    target = tmp_path / "out.csv"
    with open_sink(str(target), failed_logit=None) as sink:
        sink.write("a, b.jpg", [np.float32(1.5)], None)
        sink.write("no.jpg", None, "file not found")
        sink.write('q"uote\n.jpg', [np.float32(-2e-9)], None)
        sink.write("re\rturn.jpg", [np.float32(3)], None)
    text = target.read_bytes().decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["filename", "logit"],
        ["a, b.jpg", "1.5"],
        ["no.jpg", ""],
        ['q"uote\n.jpg', "-2e-09"],
        ["re\rturn.jpg", "3.0"],
    ]
    errors = tmp_path / "out.csv.errors.csv"
    assert errors.read_text() == "filename,reason\nno.jpg,file not found\n"


def test_several_columns(tmp_path):
    target = tmp_path / "out.csv"
    with open_sink(str(target), 0.5, ("rine", "univ,fd")) as sink:
        sink.write("a.jpg", np.array([1.5, -2.0], np.float32), None)
        sink.write("no.jpg", None, "file not found")
    assert target.read_text() == 'filename,rine,"univ,fd"\na.jpg,1.5,-2.0\nno.jpg,0.5,0.5\n'
    with open_sink(str(target), None, ("rine", "univfd")) as sink:
        sink.write("no.jpg", None, "file not found")
    assert target.read_text() == "filename,rine,univfd\nno.jpg,,\n"


def test_a_failed_row_can_carry_a_number(tmp_path):
    target = tmp_path / "out.csv"
    with open_sink(str(target), failed_logit=0.0) as sink:
        sink.write("no.jpg", None, "file not found")
    assert target.read_text() == "filename,logit\nno.jpg,0.0\n"


def test_reasons_of_an_earlier_run_do_not_stay(tmp_path):
    target = tmp_path / "out.csv"
    (tmp_path / "out.csv.errors.csv").write_text("old")
    with open_sink(str(target), failed_logit=None) as sink:
        sink.write("a.jpg", [np.float32(1)], None)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_run_that_breaks_leaves_what_was_there(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("the last good run")
    with pytest.raises(RuntimeError), open_sink(str(target), None) as sink:  # noqa: PT012
        sink.write("a.jpg", [np.float32(1)], None)
        sink.write("b.jpg", None, "reason")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert target.read_text() == "the last good run"


def test_a_linked_output_is_written_where_the_link_points(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "elsewhere/real.csv")
    with open_sink(str(link), None) as sink:
        sink.write("a.jpg", [np.float32(1)], None)
    assert link.is_symlink()
    assert (tmp_path / "elsewhere/real.csv").read_text() == "filename,logit\na.jpg,1.0\n"


def test_names_that_are_not_utf8_come_out_as_they_went_in(tmp_path):
    target = tmp_path / "out.csv"
    with open_sink(str(target), None) as sink:
        sink.write("l\udce4tin.jpg", [np.float32(1)], None)
    assert target.read_bytes() == b"filename,logit\nl\xe4tin.jpg,1.0\n"


def test_an_output_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("filename\n")
    with pytest.raises(InputError, match="is a folder"):
        check_output(str(tmp_path), str(source))
    with pytest.raises(InputError, match="does not exist"):
        check_output(str(tmp_path / "no/out.csv"), str(source))
    with pytest.raises(InputError, match="overwrite the input"):
        check_output(str(source), str(source))
    with pytest.raises(InputError, match="no regular file: use - "):
        check_output("/dev/null", str(source))
    (tmp_path / "way.csv.errors.csv").mkdir()
    with pytest.raises(InputError, match="is in the way"):
        check_output(str(tmp_path / "way.csv"), str(source))
    (tmp_path / "way.csv.errors.csv").rmdir()
    with pytest.raises(InputError, match="cannot write"):
        check_output(str(tmp_path / ("n" * 245)), str(source))
    dangling = tmp_path / "dangling.csv"
    dangling.symlink_to("/nonexistent/x.csv")
    with pytest.raises(InputError, match="cannot write"):
        check_output(str(dangling), str(source))
    dangling.unlink()
    link = tmp_path / "link.csv"
    link.symlink_to(source)
    with pytest.raises(InputError, match="overwrite the input"):
        check_output(str(link), str(source))
    check_output(str(tmp_path / "out.csv"), str(source))
    check_output("-", str(source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "link.csv"]
