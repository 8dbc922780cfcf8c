"""The tables of README.md and docs/ are what their results say."""

from __future__ import annotations

import json

import pytest

from tests.conftest import REPOSITORY
from trtdet.benchmarks.tables import RESULTS, TABLES, pages, with_tables
from trtdet.errors import InputError

PAGES = pages(REPOSITORY)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_results_say(page):
    text = page.read_text(encoding="utf-8")
    assert with_tables(text, RESULTS) == text, "run `make tables`"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_stands_on_a_page(name):
    assert any(f"<!-- table: {name} -->" in page.read_text(encoding="utf-8") for page in PAGES)


def test_every_result_says_where_it_was_measured():
    for path in sorted(RESULTS.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["machine"]["cpu"], path
        assert record["versions"]["trtdet"], path
        assert record["commit"], path


def test_a_changed_number_changes_its_table(tmp_path):
    record = json.loads((RESULTS / "startup.json").read_text())
    record["results"]["help_s"] = 12.3
    (tmp_path / "startup.json").write_text(json.dumps(record))
    before = "before\n<!-- table: startup -->\nold\n<!-- end -->\nafter\n"
    text = with_tables(before, tmp_path)
    assert "| `trtdet --help` | 12.30 s |\n" in text
    assert text.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in text
    assert with_tables(text, tmp_path) == text


def test_probes_of_fewer_bits_say_nothing_of_float32(tmp_path):
    record = json.loads((RESULTS / "verify" / "starter.json").read_text())
    (tmp_path / "verify").mkdir()
    for precision, cells in (("fp32", "| 0 of 4 | 1.0000 |"), ("int8", "| - | - |")):
        text = json.dumps({**record, "precision": precision})
        (tmp_path / "verify" / "starter.json").write_text(text)
        assert cells in with_tables("<!-- table: verify -->\n<!-- end -->\n", tmp_path)


def test_what_cannot_be_made_is_said(tmp_path):
    place = "<!-- table: {} -->\n<!-- end -->\n"
    assert "*Not measured yet: native-nodown.json is not there.*" in with_tables(
        place.format("native"), tmp_path
    )
    with pytest.raises(InputError, match="no table is called 'other'"):
        with_tables(place.format("other"), tmp_path)
    with pytest.raises(InputError, match="has no end"):
        with_tables("<!-- table: native -->\n", tmp_path)
