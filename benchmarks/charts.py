"""Charts for pages: SVG whose colours are the page's, so that they follow it into the dark.

A chart is drawn 360 units wide and shown 310 to 460 pixels wide (`page.grid`), so its letters stay
about as large as the page's. What tells series apart is a number, their hue, with its own colour
and its own dashes in `page.css`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from trtdet.benchmarks.page import element, minus

HUES = 8

_WIDTH, _HEIGHT = 360.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 350.0, 10.0, 206.0  # of the plot's area


@dataclass(frozen=True)
class Axis:
    """A range of values, and where it is labelled."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1; what lies outside is at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Line:
    """A series: a line through points, perhaps with a band of uncertainty."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    hue: int = 0
    dots: bool = False
    area: bool = False  # filled down to the axis
    plain: bool = False  # without its dashes


@dataclass(frozen=True)
class Mark:
    """A point, perhaps with its interval; `title` is shown when it is pointed at."""

    x: float
    y: float
    title: str
    hue: int = 0
    low: float | None = None
    high: float | None = None
    radius: float = 4.5


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, for a strip."""

    title: str
    value: float
    low: float
    high: float
    hue: int = 0


def linear_axis(label: str, low: float, high: float, ticks: int = 5) -> Axis:
    """An axis with about `ticks` round values (1, 2 or 5 times a power of ten)."""
    if not low < high:
        low, high = low - 0.5, low + 0.5
    raw = (high - low) / ticks
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(each * magnitude for each in (1, 2, 5, 10) if each * magnitude >= raw * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [index * step for index in range(first, last + 1)]
    return Axis(label, low, high, tuple((each, minus(f"{each:.{digits}f}")) for each in values))


def named_axis(label: str, names: Sequence[str]) -> Axis:
    """An axis whose places 0, 1, 2, ... have names, equally spaced."""
    return Axis(label, 0.0, max(len(names) - 1.0, 1.0), tuple(enumerate(names)))


def line_chart(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    references: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    note: str | None = None,
) -> Element:
    """A figure of lines over two axes.

    `description` says in a sentence what is to be seen, for those who cannot see it; `references`
    are dotted lines from one point (x, y) to another; `note` stands below the title.
    """
    place = _Place(x, y)
    drawn = [*_axes(x, y, place)]
    for (x0, y0), (x1, y1) in references:
        (left, bottom), (right, top) = place.at(x0, y0), place.at(x1, y1)
        drawn.append(element("line", x1=left, y1=bottom, x2=right, y2=top, class_="reference"))
    for line in lines:
        drawn += _line(line, place)
    for mark in marks:
        drawn += _mark(mark, place)
    image = element(
        "svg",
        element("title", title),
        element("desc", description),
        *drawn,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=f"{title}: {description}",
    )
    below = None if note is None else element("span", note)
    return element("figure", element("figcaption", title, below), image)


def strip(axis: Axis, estimates: Sequence[Estimate], *, reference: float | None = None) -> Element:
    """Dots with whiskers along a line, one lane each: for a cell of a table."""
    lane, height = 9, 9 * len(estimates) + 7
    drawn = []
    if reference is not None:
        at = _percent(axis.share(reference))
        drawn.append(element("line", x1=at, x2=at, y1=0, y2=height, class_="reference"))
    for number, each in enumerate(estimates):
        level = lane * number + 8
        low, high = _percent(axis.share(each.low)), _percent(axis.share(each.high))
        drawn.append(
            element("line", x1=low, x2=high, y1=level, y2=level, class_=f"whisker {_hue(each.hue)}")
        )
        drawn.append(_dot((_percent(axis.share(each.value)), level), each.title, each.hue, 3.5))
    label = "; ".join(each.title for each in estimates)
    return element("svg", *drawn, height=height, class_="strip", role="img", aria_label=label)


def bars(axis: Axis, values: Sequence[tuple[str, float, int]]) -> Element:
    """Bars from the axis' start, one lane each: (title, value, hue); for a cell of a table."""
    lane, height = 9, 9 * len(values) + 7
    drawn = [
        element(
            "rect",
            element("title", title),
            x=0,
            y=lane * number + 5,
            width=_percent(axis.share(value)),
            height=6,
            rx=1,
            class_=f"bar {_hue(hue)}",
        )
        for number, (title, value, hue) in enumerate(values)
    ]
    label = "; ".join(title for title, _value, _hue in values)
    return element("svg", *drawn, height=height, class_="strip", role="img", aria_label=label)


def legend(entries: Sequence[tuple[str, int]]) -> Element:
    """Names with their hues: (name, hue)."""
    made = []
    for name, hue in entries:
        sample = element(
            "svg",
            element("line", x1=1, x2=27, y1=6, y2=6, class_=f"line {_hue(hue)}"),
            viewBox="0 0 28 12",
            height=12,
            aria_hidden="true",
        )
        made.append(element("li", sample, element("span", name)))
    return element("ul", *made, class_="legend")


@dataclass(frozen=True)
class _Place:
    """From values to units of the drawing."""

    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_RIGHT - _LEFT) * self.x.share(x)
        down = _BOTTOM - (_BOTTOM - _TOP) * self.y.share(y)
        return round(across, 2), round(down, 2)


def _axes(x: Axis, y: Axis, place: _Place) -> list[Element]:
    drawn = []
    for value, text in y.ticks:
        _across, down = place.at(x.low, value)
        drawn.append(element("line", x1=_LEFT, x2=_RIGHT, y1=down, y2=down, class_="rule"))
        drawn.append(element("text", text, x=_LEFT - 6, y=down + 4, text_anchor="end"))
    drawn.append(element("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM, class_="axis"))
    for value, text in x.ticks:
        across, _down = place.at(value, y.low)
        drawn.append(
            element("line", x1=across, x2=across, y1=_BOTTOM, y2=_BOTTOM + 4, class_="axis")
        )
        drawn.append(element("text", text, x=across, y=_BOTTOM + 17, text_anchor="middle"))
    middle = (_LEFT + _RIGHT) / 2
    drawn.append(element("text", x.label, x=middle, y=_HEIGHT - 8, text_anchor="middle"))
    across, down = 11, (_TOP + _BOTTOM) / 2
    turned = f"rotate(-90 {across} {down:g})"
    drawn.append(element("text", y.label, x=across, y=down, text_anchor="middle", transform=turned))
    return drawn


def _line(line: Line, place: _Place) -> list[Element]:
    hue = _hue(line.hue)
    points = [place.at(x, y) for x, y in zip(line.x, line.y, strict=True)]
    drawn = []
    if len(line.low):
        upper = [place.at(x, y) for x, y in zip(line.x, line.high, strict=True)]
        lower = [place.at(x, y) for x, y in zip(line.x, line.low, strict=True)]
        drawn.append(element("polygon", points=_path(upper + lower[::-1]), class_=f"band {hue}"))
    if line.area and points:
        foot = [(points[-1][0], _BOTTOM), (points[0][0], _BOTTOM)]
        drawn.append(element("polygon", points=_path(points + foot), class_=f"area {hue}"))
    kind = f"line {hue}" + (" plain" if line.plain else "")
    drawn.append(element("polyline", points=_path(points), class_=kind))
    if line.dots:
        for at, y in zip(points, line.y, strict=True):
            drawn.append(_dot(at, f"{line.name}: {y:.3f}", line.hue, 2.8))
    return drawn


def _mark(mark: Mark, place: _Place) -> list[Element]:
    across, down = place.at(mark.x, mark.y)
    dot = _dot((across, down), mark.title, mark.hue, mark.radius)
    if mark.low is None or mark.high is None:
        return [dot]
    ends = [place.at(mark.x, end)[1] for end in (mark.low, mark.high)]
    kind = f"whisker {_hue(mark.hue)}"
    return [element("line", x1=across, x2=across, y1=ends[0], y2=ends[1], class_=kind), dot]


def _dot(at: tuple[object, object], title: str, hue: int, radius: float) -> Element:
    return element(
        "circle", element("title", title), cx=at[0], cy=at[1], r=radius, class_=f"dot {_hue(hue)}"
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _hue(number: int) -> str:
    return f"hue-{number % HUES}"
