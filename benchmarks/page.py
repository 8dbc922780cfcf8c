"""HTML pages that need nothing else: no script, no request, light and dark, on paper, too.

A page is a tree of elements, and the tree is written out once at the end. Whatever text comes in, a
file name or a label, is a node of that tree and never markup: nobody has to remember to escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Content: TypeAlias = "Element | str | None"

# What XML and HTML have no place for: control characters, and halves of a surrogate pair, which
# stand for the bytes of a file name that is not UTF-8.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def element(tag: str, *children: Content, **attributes: object) -> Element:
    """`<tag attribute="...">children</tag>`; None is left out, as a child and as an attribute.

    `class_` is `class`, and an underscore in a name is a dash: `stroke_width`, `aria_label`.
    """
    made = Element(
        tag,
        {
            name.rstrip("_").replace("_", "-"): _text(str(value))
            for name, value in attributes.items()
            if value is not None
        },
    )
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + _text(child)
        elif child is not None:
            made.text = (made.text or "") + _text(child)
    return made


def html_page(title: str, *content: Content) -> str:
    """A whole page. `content` follows the heading."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),  # or the browser asks the server for one
        element("title", title),
        element("style", Path(__file__).with_suffix(".css").read_text(encoding="utf-8")),
    )
    main = element("main", element("h1", title), *content)
    root = element("html", head, element("body", main), lang="en")
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")


def section(heading: str, *content: Content, note: str | None = None) -> Element:
    """A part of the page under a heading; `note` says how to read it."""
    lead = None if note is None else element("p", note, class_="note")
    return element("section", element("h2", heading), lead, *content)


def paragraph(*content: Content) -> Element:
    """Text in a comfortable width."""
    return element("p", *content)


def facts(entries: Mapping[str, str]) -> Element:
    """Names and values side by side: a machine, versions, counts."""
    pairs = [
        element("div", element("dt", name), element("dd", value)) for name, value in entries.items()
    ]
    return element("dl", *pairs, class_="facts")


def tiles(entries: Iterable[tuple[str, str, str]]) -> Element:
    """The few numbers that matter most, large: (label, value, what stands below it)."""
    made = [
        element(
            "div",
            element("span", label, class_="label"),
            element("b", value),
            element("span", below, class_="below"),
        )
        for label, value, below in entries
    ]
    return element("div", *made, class_="tiles")


def grid(*figures: Element) -> Element:
    """Figures side by side, as many as there is room for."""
    return element("div", *figures, class_="grid")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Content]],
    *,
    caption: str | None = None,
    texts: int = 1,
    drawings: int = 0,
) -> Element:
    """A table: the first `texts` columns are text, the last `drawings` hold strips or bars of
    `charts`, and those between numbers, with their digits aligned.
    """
    kinds = ["text"] * texts + ["number"] * (len(columns) - texts - drawings)
    kinds += ["drawing"] * drawings

    def row(tag: str, cells: Sequence[Content]) -> Element:
        made = []
        for place, (cell, kind) in enumerate(zip(cells, kinds, strict=True)):
            heads_row = tag == "td" and place == 0
            made.append(
                element(
                    "th" if heads_row else tag,
                    cell,
                    class_=kind,
                    scope="row" if heads_row else "col" if tag == "th" else None,
                )
            )
        return element("tr", *made)

    made = element(
        "table",
        None if caption is None else element("caption", caption),
        element("thead", row("th", columns)),
        element("tbody", *(row("td", cells) for cells in rows)),
    )
    # What is wider than a phone scrolls by itself, by keyboard as well, and not the whole page.
    label = caption or columns[0]
    return element("div", made, class_="scroll", tabindex=0, role="region", aria_label=label)


def interval(value: float, low: float, high: float, form: str = ".3f") -> Element:
    """A number with its interval, the interval smaller; `form` as in an f-string."""
    ends = minus(f"[{low:{form}}, {high:{form}}]")
    return element("span", minus(f"{value:{form}} "), element("small", ends), class_="interval")


def minus(number: str) -> str:
    """A written number with a minus sign, which is as wide as a plus, in place of the hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


def _text(text: str) -> str:
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
