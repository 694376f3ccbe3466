"""Charts as inline SVG: lines, points with bars, and bars.

They say what they show (`<title>`, `<desc>`), write in the colour of the page's text, and tell series apart by dashes and
shapes as well as by colours, which the style sheet gives to the classes `s0` to `s7`. They are drawn small, so that their
letters stay legible when a narrow screen shrinks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drivedistill.report.markup import Html, el, join

WIDTH, HEIGHT = 440, 262
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 14, 420, 214
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 2", "12 3", "3 1 1 1")
SERIES = 8
"""Looks that can be told apart; after them they begin again."""


@dataclass(frozen=True)
class Point:
    """A point, with bars where it has an extent."""

    x: float
    y: float
    label: str
    series: int
    low: float | None = None
    high: float | None = None
    until: float | None = None
    """Right end of a bar that begins at x."""


@dataclass(frozen=True)
class Curve:
    """A line."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    series: int


@dataclass(frozen=True)
class Bar:
    """A bar with its name, its interval and its number in words."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    series: int = 0


class Axis:
    """Numbers to places on the paper."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        if high <= low:
            low, high = low - 0.5, high + 0.5
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def at(self, value: float) -> float:
        """Where a number lies."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + (self.end - self.start) * share, 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers between the ends."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [s * 10.0**p for p in powers for s in (1, 2, 5) if self.low <= s * 10.0**p <= self.high]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(step * times for times in (1, 2, 5, 10, 20) if (self.high - self.low) / (step * times) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [round(step * i, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(
    curves: Sequence[Curve],
    *,
    title: str,
    desc: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    steps: bool = False,
    marks: Mapping[float, str] | None = None,
    log_y: bool = False,
) -> Html:
    """Curves over one axis; the vertical one begins at zero, unless it is logarithmic.

    Args:
        curves: At least one; each with at least one point.
        title: What it is.
        desc: What can be seen, for those who cannot.
        x_label: Of the horizontal axis, with its unit.
        y_label: Of the vertical axis, with its unit.
        log_x: The horizontal axis is logarithmic.
        steps: Staircases that begin at zero.
        marks: Vertical lines with a name.
        log_y: The vertical axis is logarithmic; every value is above zero.
    """
    xs = [x for curve in curves for x in curve.xs] + list(marks or ())
    ys = [y for curve in curves for y in curve.ys]
    room = 1.5 if marks else 1.15
    x = Axis(min(xs) / (1.15 if log_x else 1), max(xs) * (room if log_x else 1), _LEFT, _RIGHT, log=log_x)
    y = Axis(min(ys) / 1.1 if log_y else min(0.0, *ys), max(ys) * (1.15 if marks else 1.07), _BOTTOM, _TOP, log=log_y)
    parts = [*_grid(x, y, x_label, y_label), *_marks(marks or {}, x)]
    for curve in curves:
        parts += [_path(curve, x, y, steps=steps), *_markers(curve, x, y)]
    return _svg(title, desc, HEIGHT, parts)


def scatter(points: Sequence[Point], *, title: str, desc: str, x_label: str, y_label: str) -> Html:
    """Points with their names and bars; the horizontal axis begins at zero, the vertical one where the bars do."""
    ends = {point: max(point.x, point.until or point.x) for point in points}
    furthest = max(end / (1 - _label_share(point.label)) for point, end in ends.items())
    highs = [point.y if point.high is None else point.high for point in points]
    lows = [point.y if point.low is None else point.low for point in points]
    margin = 0.12 * (max(highs) - min(lows)) or 1.0
    x, y = Axis(0, furthest, _LEFT, _RIGHT), Axis(min(lows) - margin, max(highs) + margin, _BOTTOM, _TOP)
    parts = list(_grid(x, y, x_label, y_label))
    taken: list[tuple[float, float]] = []
    for point in points:
        at, height = x.at(point.x), y.at(point.y)
        drawn = []
        if point.low is not None and point.high is not None:
            drawn.append(_whisker(at, y.at(point.low), at, y.at(point.high)))
        if point.until is not None:
            drawn.append(_whisker(at, height, x.at(point.until), height))
        parts.append(el("g", *drawn, _shape(at, height, point.series, 5), class_=f"s{point.series % SERIES}"))
        parts.append(_name(point.label, x.at(ends[point]), height, taken))
    return _svg(title, desc, HEIGHT, parts)


def bars(groups: Mapping[str, Sequence[Bar]], *, title: str, desc: str, highest: float | None = None) -> Html:
    """Horizontal bars in groups, one below the other, each with its number.

    Args:
        groups: Name of a group -> its bars; an empty name takes no line.
        title: What it is.
        desc: What can be seen, for those who cannot.
        highest: Where the axis ends; by default where the longest bar does.
    """
    every = [bar for group in groups.values() for bar in group]
    left = min(170, 12 + max(7.3 * len(bar.label) for bar in every))
    room = 8.4 * max(len(bar.text) for bar in every) + 8  # digits are wider than letters
    top = highest or max(max(bar.value, bar.high or 0) for bar in every) or 1.0
    axis = Axis(0, top, left, WIDTH - room)
    parts: list[Html] = []
    height = 4.0
    for name, group in groups.items():
        if name:
            height += 20
            parts.append(_text(name, 0, height - 5, bold=True))
        for bar in group:
            parts += _bar(bar, axis, height)
            height += 22
        height += 6
    return _svg(title, desc, height, parts)


def legend(names: Mapping[str, int]) -> Html:
    """Which look is whose: name -> series. It belongs beside the charts, where it can wrap."""
    items = []
    for name, series in names.items():
        line = el("line", x1=0, y1=8, x2=34, y2=8, stroke_dasharray=_DASHES[series % SERIES] or None, class_="curve")
        drawing = el("g", line, _shape(17, 8, series, 4), class_=f"s{series % SERIES}")
        swatch = el("svg", drawing, viewBox="0 0 34 16", width=34, height=16, aria_hidden="true")
        items.append(el("li", swatch, " ", name))
    return el("ul", *items, class_="legend")


def _svg(title: str, desc: str, height: float, parts: Sequence[Html]) -> Html:
    return el(
        "svg", el("title", title), el("desc", desc), *parts,
        viewBox=f"0 0 {WIDTH} {height:g}", role="img", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _grid(x: Axis, y: Axis, x_label: str, y_label: str) -> Iterator[Html]:
    for value in y.ticks():
        yield el("line", x1=_LEFT, y1=y.at(value), x2=_RIGHT, y2=y.at(value), class_="grid")
        yield _text(f"{value:g}", _LEFT - 6, y.at(value) + 4, anchor="end")
    for value in x.ticks():
        yield el("line", x1=x.at(value), y1=_BOTTOM, x2=x.at(value), y2=_BOTTOM + 4, class_="axis")
        yield _text(f"{value:g}", x.at(value), _BOTTOM + 17, anchor="middle")
    yield el("line", x1=_LEFT, y1=_BOTTOM, x2=_RIGHT, y2=_BOTTOM, class_="axis")
    yield _text(x_label, (_LEFT + _RIGHT) / 2, _BOTTOM + 36, anchor="middle")
    middle = (_TOP + _BOTTOM) / 2
    turned = f"rotate(-90 11 {middle:g})"
    yield el("text", y_label, x=11, y=middle, text_anchor="middle", transform=turned)


def _marks(marks: Mapping[float, str], x: Axis) -> Iterator[Html]:
    """Lines with names; the left one's name is to its left, for they may stand close together."""
    for place, (value, name) in enumerate(sorted(marks.items())):
        at, first = x.at(value), place == 0
        yield el("line", x1=at, y1=_TOP, x2=at, y2=_BOTTOM, class_="mark")
        yield _text(name, at - 3 if first else at + 3, _TOP + 8, anchor="end" if first else "start")


def _path(curve: Curve, x: Axis, y: Axis, *, steps: bool) -> Html:
    pairs = [(x.at(a), y.at(b)) for a, b in zip(curve.xs, curve.ys, strict=True)]
    if steps:
        way = f"M{_LEFT} {_BOTTOM}" + "".join(f"H{a:g}V{b:g}" for a, b in pairs) + f"H{_RIGHT}"
    else:
        way = "M" + "L".join(f"{a:g} {b:g}" for a, b in pairs)
    dash = _DASHES[curve.series % SERIES] or None
    return el("path", d=way, stroke_dasharray=dash, class_=f"curve s{curve.series % SERIES}")


def _markers(curve: Curve, x: Axis, y: Axis) -> Iterator[Html]:
    """Shapes at up to five places of a curve, not at the same ones as the next curve's."""
    count = min(5, len(curve.xs))
    step = len(curve.xs) / count
    for place in range(count):
        at = min(len(curve.xs) - 1, int(step * (place + (curve.series % SERIES + 0.5) / SERIES)))
        shape = _shape(x.at(curve.xs[at]), y.at(curve.ys[at]), curve.series, 3.5)
        yield el("g", shape, class_=f"s{curve.series % SERIES}")


def _shape(x: float, y: float, series: int, size: float) -> Html:
    """A circle, square, triangle, diamond or cross; after five looks the shapes come again, hollow."""
    hollow = "hollow" if series % SERIES >= 5 else "solid"
    a, b, c, d = x - size, x + size, y - size, y + size
    corners = {
        1: [(a, c), (b, c), (b, d), (a, d)],
        2: [(x, c), (b, d), (a, d)],
        3: [(x, c), (b, y), (x, d), (a, y)],
        4: [(a, c), (b, c), (x, d)],
    }.get(series % SERIES % 5)
    if corners is None:
        return el("circle", cx=x, cy=y, r=size, class_=hollow)
    return el("polygon", points=" ".join(f"{p:.1f},{q:.1f}" for p, q in corners), class_=hollow)


def _whisker(x1: float, y1: float, x2: float, y2: float) -> Html:
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="whisker")


def _label_share(label: str) -> float:
    """How much of the width a point's name needs, at most half of it."""
    return min(0.5, (16 + 7 * len(label)) / (_RIGHT - _LEFT))


def _name(label: str, x: float, y: float, taken: list[tuple[float, float]]) -> Html:
    """A point's name, behind the end of its bar; moved up or down until it covers no other."""
    width = 7.0 * len(label) + 16
    shifts = (0, -15, 15, -30, 30, -45, 45, -60, 60)
    tried = [(x + 9, y + 4 + shift) for shift in shifts]
    free = [p for p in tried if all(abs(p[1] - q[1]) > 14 or abs(p[0] - q[0]) > width for q in taken)]
    place = (free or tried)[0]
    taken.append(place)
    return el("text", label, x=round(place[0], 1), y=round(place[1], 1), class_="halo")


def _bar(bar: Bar, axis: Axis, top: float) -> Iterator[Html]:
    middle, end = top + 9, max(axis.at(max(bar.value, 0)), axis.start)
    yield _text(bar.label, axis.start - 8, middle + 4, anchor="end")
    look = f"bar s{bar.series % SERIES}"
    yield el("rect", x=axis.start, y=top + 2, width=round(end - axis.start, 1), height=14, class_=look)
    right = end
    if bar.low is not None and bar.high is not None:
        right = max(end, axis.at(min(bar.high, axis.high)))
        yield _whisker(axis.at(max(bar.low, 0)), middle, axis.at(min(bar.high, axis.high)), middle)
    yield _text(bar.text, right + 6, middle + 4)


def _text(text: str, x: float, y: float, *, anchor: str | None = None, bold: bool = False) -> Html:
    return el("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_="strong" if bold else None)


def side_by_side(drawings: Sequence[Html]) -> Html:
    """Charts in as many columns as there is room for."""
    return el("div", join(drawings), class_="charts")
