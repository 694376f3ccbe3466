"""The study as a figure: four panels, as Drive-KD draws them, with intervals. SVG by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

from drivedistill.study.curves import Curve, Curves
from drivedistill.study.table import mean_curve

_COLOURS = {
    "through the layer": "#4477aa", "image and text, entering": "#ee7733",
    "perception": "#4477aa", "reasoning": "#ee7733", "planning": "#228833",
    "hidden": "#4477aa", "full": "#ee7733", "text to vision": "#228833",
    "all": "#222222", "regular": "#66ccee", "corner": "#aa3377",
}  # fmt: skip
_WIDTH, _HEIGHT, _LEFT, _TOP = 340, 170, 56, 64
_STEP_X, _STEP_Y = 440, 290
LEAST = 1e-4
"""The dispersion's axis is logarithmic and ends here."""


@dataclass(frozen=True)
class Panel:
    """Curves over one axis."""

    title: str
    x_label: str
    curves: dict[str, Curve]
    """By name."""
    log: bool = False
    first: float = 0.0
    """Where the horizontal axis begins."""


def panels(found: Curves) -> list[Panel]:
    """What is drawn."""
    aligned = {} if found.alignment is None else {"image and text, entering": found.alignment}
    spread = {
        name.replace("_", " "): replace(found.change, values=mean_curve(list(by_name.values())), low=[], high=[])
        for name, by_name in found.dispersion.items()
    }
    return [
        Panel("(a) cosine of neighbours, and of modalities", "layer", {"through the layer": found.change, **aligned}),
        Panel("(b) similarity within a capability", "layer", found.similarity),
        Panel("(c) dispersion, 1 - cosine (logarithmic)", "layer", spread, log=True),
        Panel("(d) margin of the two likeliest words", "tenth of the answer", found.margin, first=1.0),
    ]


def figure(found: Curves) -> str:
    """The four panels as SVG; bands are 95 % intervals over scenes."""
    shapes: list[str] = []
    for number, panel in enumerate(panels(found)):
        row, column = divmod(number, 2)
        at = f"translate({_LEFT + column * _STEP_X} {_TOP + row * _STEP_Y})"
        shapes += [f'<g transform="{at}">', *_panel(panel), "</g>"]
    width, height = 2 * _STEP_X, 2 * _STEP_Y + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="{width}" height="{height}" fill="white"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _panel(panel: Panel) -> Iterator[str]:
    everything = [curve.values + curve.low + curve.high for curve in panel.curves.values()]
    known = [value for values in everything for value in values if value is not None]
    low, high = _ends(known, log=panel.log)
    last = panel.first + max([1, *(len(curve.values) - 1 for curve in panel.curves.values())])

    def across(place: float) -> float:
        return round(_WIDTH * (place - panel.first) / (last - panel.first), 1)

    def level(value: float) -> float:
        if panel.log:
            return round(_HEIGHT * (1 - math.log(max(value, LEAST) / low) / math.log(high / low)), 1)
        return round(_HEIGHT * (1 - (value - low) / (high - low)), 1)

    yield f'<text x="0" y="-30" font-size="13">{escape(panel.title)}</text>'
    yield from _legend(list(panel.curves))
    for tick in _ticks(low, high, log=panel.log):
        yield f'<path d="M0 {level(tick):g}H{_WIDTH}" stroke="#ddd"/>'
        yield f'<text x="-6" y="{level(tick) + 4:g}" text-anchor="end">{tick:g}</text>'
    step = max(1, math.ceil((last - panel.first) / 10))
    for place in range(int(panel.first), int(last) + 1, step):
        yield f'<text x="{across(place):g}" y="{_HEIGHT + 16}" text-anchor="middle">{place}</text>'
    yield f'<text x="{_WIDTH / 2:g}" y="{_HEIGHT + 32}" text-anchor="middle">{panel.x_label}</text>'
    for name, curve in panel.curves.items():
        yield from _drawn(curve, _COLOURS[name], lambda i: across(panel.first + i), level)
    yield f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" stroke="black" fill="none"/>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = 0.0
    for name in names:
        yield f'<rect x="{x:g}" y="-20" width="10" height="10" fill="{_COLOURS[name]}"/>'
        yield f'<text x="{x + 14:g}" y="-11" font-size="10">{escape(name)}</text>'
        x += 22 + 5.4 * len(name)


def _drawn(
    curve: Curve, colour: str, across: Callable[[float], float], level: Callable[[float], float]
) -> Iterator[str]:
    """A line through what there is, on its band."""
    bounds = [
        (across(i), level(low), level(high))
        for i, (low, high) in enumerate(zip(curve.low, curve.high, strict=True))
        if low is not None and high is not None
    ]
    if bounds:
        corners = [(x, high) for x, _, high in bounds] + [(x, low) for x, low, _ in reversed(bounds)]
        path = "L".join(f"{x:g} {y:g}" for x, y in corners)
        yield f'<path d="M{path}Z" fill="{colour}" opacity="0.18"/>'
    points = [(across(i), level(value)) for i, value in enumerate(curve.values) if value is not None]
    for (x, y), (then_x, then_y) in pairwise(points):
        yield f'<path d="M{x:g} {y:g}L{then_x:g} {then_y:g}" stroke="{colour}" stroke-width="2"/>'
    for x, y in points:
        yield f'<circle cx="{x:g}" cy="{y:g}" r="2" fill="{colour}"/>'


def _ends(known: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Ends of the vertical axis, around all that is drawn."""
    if log:
        low = 10.0 ** math.floor(math.log10(max(LEAST, min(known, default=LEAST))))
        return low, max(10 * low, 10.0 ** math.ceil(math.log10(max(LEAST, *known, LEAST))))
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = max(0.02, 0.08 * (high - low))
    return low - room, high + room


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    if log:
        return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(step * times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= 6)
    return [round(step * i, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
