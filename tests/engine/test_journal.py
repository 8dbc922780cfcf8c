"""The journal: what it holds after any end, and what it refuses."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtdet.engine import journal as module
from trtdet.engine.journal import (
    JournalSink,
    journal_path,
    resume_journal,
    start_journal,
    write_again,
)
from trtdet.errors import InputError

JOB = {"engine": "a" * 64, "input": "b" * 64, "options": {"raw": False}}
ROWS = [["1.5"], "no image", ["-0.25"], "\udcff is no UTF-8", ["nan"]] * 300


class InterruptionError(Exception):
    """What ends a run."""


def write(path, rows, job=JOB):
    """A run that ends after these rows."""
    interrupt(start_journal(path, job), rows)


def interrupt(journal, rows):
    """Some more rows, and the end."""
    with contextlib.suppress(InterruptionError), journal:
        for row in rows:
            journal.append(row)
        raise InterruptionError


def test_what_was_appended_is_there(tmp_path):
    path = journal_path(tmp_path / "out.csv")
    assert path.name == "out.csv.journal"
    write(path, ROWS)
    journal, rows = resume_journal(path, JOB)
    assert list(rows) == ROWS
    interrupt(journal, [["7.0"]])
    journal, rows = resume_journal(path, JOB)
    assert list(rows) == [*ROWS, ["7.0"]]
    with journal:
        pass
    assert not path.exists()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_leaves_a_beginning_and_can_be_gone_on_with(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        write(path, ROWS)
        whole = path.read_bytes()
        start = whole.index(b"\n") + 1
        cut = data.draw(st.integers(start, len(whole)))
        path.write_bytes(whole[:cut])
        journal, rows = resume_journal(path, JOB)
        kept = list(rows)
        assert kept == ROWS[: len(kept)]
        assert len(kept) >= len(ROWS) - 2 * module.ROWS_AT_ONCE or cut < len(whole)
        interrupt(journal, ROWS[len(kept) :])
        journal, rows = resume_journal(path, JOB)
        assert list(rows) == ROWS
        journal._file.close()


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_flipped_bit_ends_it_there(tmp_path, place):
    path = tmp_path / "j"
    write(path, ROWS)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)
    journal, rows = resume_journal(path, JOB)
    kept = list(rows)
    assert kept == ROWS[: len(kept)]
    assert len(kept) < len(ROWS)
    journal._file.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no journal of trtdet"),
        (b"filename,logit\n", "is no journal of trtdet"),
        (b'{"journal": 9, "job": {}}\n', "of another version"),
        (b'{"journal": 1, "job": {"engine": "c", "input": "b"}}\n', r"engine \(c then, a+ now\)"),
    ],
)
def test_another_job_is_refused_with_what_differs(tmp_path, content, message):
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        resume_journal(path, JOB)
    assert path.read_bytes() == content


def test_without_a_journal_there_is_nothing_to_go_on_with(tmp_path):
    with pytest.raises(InputError, match="leave --resume out"):
        resume_journal(tmp_path / "j", JOB)


def test_a_new_run_moves_an_old_journal_aside(tmp_path):
    path = tmp_path / "j"
    write(path, ROWS[:3])
    old = path.read_bytes()
    write(path, ROWS[:1])
    assert (tmp_path / "j.old").read_bytes() == old


def test_two_processes_do_not_write_one_journal(tmp_path):
    path = tmp_path / "j"
    with start_journal(path, JOB):
        with pytest.raises(InputError, match="another process is writing"):
            start_journal(path, JOB)
        with pytest.raises(InputError, match="another process is writing"):
            resume_journal(path, JOB)


def test_a_full_disk_loses_what_follows_alone(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)

    class Full:
        """Takes half of a record, as a disk does that runs full."""

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise OSError(28, "No space left on device")

    journal = start_journal(path, JOB)
    journal.append(["1.0"])
    journal.append(["2.0"])
    journal._file = Full(journal._file)
    with pytest.raises(OSError, match="No space"):
        interrupt(journal, [["3.0"], ["4.0"]])
    journal, rows = resume_journal(path, JOB)
    assert list(rows) == [["1.0"], ["2.0"]]
    journal._file.close()


def test_a_sink_with_a_journal_writes_the_same_rows_again(tmp_path):
    class Lines:
        failures = 0

        def __init__(self):
            self.rows = []

        def write(self, filename, logits, reason):
            self.rows.append((filename, logits and [float(each) for each in logits], reason))

    path = tmp_path / "j"
    first, again = Lines(), Lines()
    values = np.float32([0.1, -1e-30, 3e38, 16777217])
    journal = start_journal(path, JOB)
    sink = JournalSink(first, journal)
    for value in values:
        sink.write("a.png", [value], None)
    sink.write("b.png", None, "no image")
    interrupt(journal, [])
    journal, rows = resume_journal(path, JOB)
    for name, row in zip(["a.png"] * 4 + ["b.png"], rows, strict=True):
        write_again(again, name, row)
    journal._file.close()
    assert again.rows == first.rows
    assert [row[1] for row in again.rows[:4]] == [[float(value)] for value in values]
