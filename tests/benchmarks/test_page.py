"""Pages: whatever a name holds stays text; they open without a complaint, and fit a phone."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.chromium import open_browser
from trtdet.benchmarks import charts, page

HOSTILE = "<script>alert(1)</script>\"'&amp;\u202e\x00\udcff"


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [value or "" for _name, value in attrs]

    def handle_data(self, data):
        self.text += data


def sample_page(name: str) -> str:
    x, y = charts.linear_axis(name, 0, 1), charts.linear_axis("share", 0, 1)
    line = charts.Line(
        name, [0, 0.5, 1], [0.2, 0.4, 0.9], [0.1, 0.3, 0.8], [0.3, 0.5, 1], dots=True
    )
    chart = charts.line_chart(
        name, name, x, y, [line], marks=[charts.Mark(0.5, 0.5, name)], note=name
    )
    estimates = [charts.Estimate(name, 0.5, 0.4, 0.6), charts.Estimate("two", 0.7, 0.6, 0.8, 1)]
    return page.html_page(
        name,
        page.paragraph(name, page.element("code", name), name),
        page.tiles([(name, "0.5", name)]),
        page.section(
            name,
            page.facts({name: name}),
            page.grid(*[chart] * 4),
            charts.legend([(name, 0), ("two", 1)]),
            page.table(
                [name, "AUC", "strip", "bars"],
                [[name, page.interval(0.5, 0.4, 0.6), charts.strip(y, estimates, reference=0.5),
                  charts.bars(y, [(name, 0.3, 0)])]],
                caption=name,
                drawings=2,
            ),
            note=name,
        ),
    )  # fmt: skip


def test_a_hostile_name_stays_text_wherever_it_stands():
    plain, hostile = Reader(sample_page("name")), Reader(sample_page(HOSTILE))
    assert hostile.tags == plain.tags
    assert "script" not in hostile.tags
    shown = HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    shown = shown.replace("\udcff", "\N{REPLACEMENT CHARACTER}")
    assert hostile.text.count(shown) == plain.text.count("name") > 10
    assert sum(shown in value for value in hostile.attributes) == 4 + 1 + 1 + 1
    sample_page(HOSTILE).encode("utf-8")


def test_elements_keep_text_and_children_in_order():
    made = page.paragraph("a", page.element("b", "c"), "d", None, "e", page.element("i", None), "f")
    assert Reader(page.html_page("", made)).text.endswith("acdef")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-4, 6, ["−4", "−2", "0", "2", "4", "6"]),
        (0.44, 0.61, ["0.45", "0.50", "0.55", "0.60"]),
        (0, 5000, ["0", "1000", "2000", "3000", "4000", "5000"]),
        (3, 3, ["2.6", "2.8", "3.0", "3.2", "3.4"]),
    ],
)
def test_axes_have_round_ticks(low, high, expected):
    axis = charts.linear_axis("", low, high)
    assert [text for _value, text in axis.ticks] == expected


def test_points_lie_where_their_values_say():
    x, y = charts.linear_axis("", 0, 10), charts.linear_axis("", 0, 1)
    figure = charts.line_chart("", "", x, y, [charts.Line("", [0, 5, 10], [0, 0.5, 2])])
    (line,) = figure.iter("polyline")
    assert line.get("points") == "44,206 197,108 350,10"  # 2 is beyond the axis: at its end


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_without_a_complaint_and_fits(tmp_path: Path, width: int, dark: bool):
    path = tmp_path / "page.html"
    path.write_text(sample_page(HOSTILE + "long" * 60), encoding="utf-8")
    with open_browser() as browser:
        browser.open(path, width=width, dark=dark)
        assert browser.complaints == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {
            path.absolute().as_uri()
        }
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 23, 26)" if dark else "rgb(253, 253, 252)")
