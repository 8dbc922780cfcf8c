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
    record = json.loads((RESULTS / "rine-int8.json").read_text())
    record["images/s"]["trtdet int8"] *= 2
    (tmp_path / "rine-int8.json").write_text(json.dumps(record))
    before = "before\n<!-- table: rine-int8 -->\nold\n<!-- end -->\nafter\n"
    text = with_tables(before, tmp_path)
    assert "| trtdet, INT8, batch 4 | 17.56 | 11.59 |\n<!-- end -->\nafter\n" in text
    assert "old" not in text
    assert with_tables(text, tmp_path) == text


def test_what_cannot_be_made_is_said(tmp_path):
    place = "<!-- table: {} -->\n<!-- end -->\n"
    assert "*Not measured yet: native-nodown.json is not there.*" in with_tables(
        place.format("native"), tmp_path
    )
    with pytest.raises(InputError, match="no table is called 'other'"):
        with_tables(place.format("other"), tmp_path)
    with pytest.raises(InputError, match="has no end"):
        with_tables("<!-- table: native -->\n", tmp_path)
