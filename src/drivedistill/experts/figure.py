"""The weights of the experts as a figure, made of the comparisons of `report.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from drivedistill.evaluate.rows import ALL
from drivedistill.experts.report import RegimeComparison, Value, label

_COLOURS = {"regular": "#4477aa", "corner": "#ee7733"}
_BAR, _GAP, _HEIGHT, _LEFT, _TOP, _COLUMNS = 18, 16, 120, 44, 64, 4


def figure(comparisons: Sequence[RegimeComparison]) -> str:
    """Mean weight of every expert by regime as SVG, one panel per layer; like CLKD's figure 3, with intervals."""
    panels = [item for item in comparisons if item.group == (ALL, ALL) and item.layer.tokens == "all"]
    top = max(value.high or value.value for item in panels for part in item.parts.values() for value in part.weights)
    width = _LEFT + max(item.layer.experts for item in panels) * (2 * _BAR + _GAP) + _GAP
    shapes: list[str] = []
    for number, item in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        shapes += [
            f'<g transform="translate({column * width} {_TOP + row * (_HEIGHT + 50)})">',
            *_panel(item, top),
            "</g>",
        ]
    rows = -(-len(panels) // _COLUMNS)
    total, height = max(min(len(panels), _COLUMNS) * width, 440), _TOP + rows * (_HEIGHT + 50)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="{total}" height="{height}" fill="white"/>\n'
        + "\n".join([*_legend(), *shapes])
        + "\n</svg>\n"
    )


def _legend() -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="18" font-size="13">Mean weight of every expert (whiskers: 95 %, dashed: even)</text>'
    for place, (regime, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 90 * place
        yield f'<rect x="{x}" y="26" width="10" height="10" fill="{colour}"/><text x="{x + 15}" y="35">{regime}</text>'


def _panel(item: RegimeComparison, top: float) -> Iterator[str]:
    def level(value: float) -> float:
        return abs(round(_HEIGHT - _HEIGHT * value / top, 1))

    right = _LEFT + item.layer.experts * (2 * _BAR + _GAP)
    yield f'<text x="{_LEFT}" y="-8" font-weight="bold">{label(item.layer)}</text>'
    for value in (0.0, top):
        yield f'<text x="{_LEFT - 6}" y="{level(value) + 4:g}" text-anchor="end">{value:.2f}</text>'
    for expert in range(item.layer.experts):
        x = _LEFT + _GAP + expert * (2 * _BAR + _GAP)
        for place, (regime, part) in enumerate(item.parts.items()):
            yield from _bar(x + place * _BAR, part.weights[expert], _COLOURS[regime], level)
        yield f'<text x="{x + _BAR}" y="{_HEIGHT + 16}" text-anchor="middle">{expert}</text>'
    even = level(1 / item.layer.experts)
    yield f'<path d="M{_LEFT} {even}H{right}" stroke="#555" stroke-dasharray="4 3"/>'
    yield f'<path d="M{_LEFT} 0V{_HEIGHT}H{right}" stroke="black" fill="none"/>'


def _bar(x: int, value: Value, colour: str, level: Callable[[float], float]) -> Iterator[str]:
    y = level(value.value)
    yield f'<rect x="{x}" y="{y}" width="{_BAR - 2}" height="{_HEIGHT - y:g}" fill="{colour}"/>'
    if value.low is not None and value.high is not None:
        yield f'<path d="M{x + _BAR // 2 - 1} {level(value.low)}V{level(value.high)}" stroke="black"/>'
