"""The use of experts for people: sentences, tables and a figure, made of the comparisons of `expert_report.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from drivedistill.evaluate.expert_report import DEAD, REGIMES, Comparison, Part, Value, label, verdict
from drivedistill.evaluate.experts import CONTROLS
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.rows import ALL

_READ_ME = f"""\
Effective number: exponential of the entropy of a token's probabilities, between 1 and the number of experts; mean over
tokens. Brackets: 95 % interval, whole scenes drawn anew. Random routers were asked about the same tokens: `untrained` ones
have fresh weights, `permuted` ones the trained weights, on features in another order; mean ± standard deviation of the
differences that they show. Where a random router shows as much, the inputs alone may explain the difference.
Where the data sets of the two regimes differ, so do their questions and pictures: read the rows within one data set. With
fewer than {ENOUGH_SCENES} scenes of each regime nothing is claimed. Dead: less than {DEAD:.0%} of an even share of the use.
Experts are counted from 0. `experts.json` has all readings, by data set and task."""


def report(model: str, comparisons: Sequence[Comparison]) -> str:
    """The content of `experts.md`, legible as it is."""
    parts = [f"# Experts of {model}", _asked(comparisons), "## Do corner cases use more experts?"]
    parts += ["\n".join(f"- {sentence}" for sentence in sentences(comparisons))]
    if any(item.differences for item in comparisons):
        parts += [_differences(comparisons)]
    return "\n\n".join([*parts, "## Mean weight of every expert", _weights(comparisons), _READ_ME]) + "\n"


def _asked(comparisons: Sequence[Comparison]) -> str:
    parts = comparisons[0].parts
    asked = (f"{part.questions:,} {regime} questions of {part.scenes} scenes" for regime, part in parts.items())
    return f"Teacher-forced passes over {' and '.join(asked)}."


def sentences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """One for every layer, about all of its tokens; of `top_p` routers also about how many experts ran."""
    whole = [item for item in comparisons if item.layer.tokens == "all" and item.group.task == ALL]
    for item in whole:
        if item.group.dataset == ALL:
            alike = [other for other in whole if other.layer is item.layer and other is not item and other.differences]
            yield _sentence(item, alike, "exp_entropy", "effective experts")
            if item.layer.router == "top_p":
                yield _sentence(item, alike, "active", "running experts")


def _sentence(item: Comparison, alike: Sequence[Comparison], name: str, what: str) -> str:
    if not item.differences:
        return f"{label(item.layer)}: questions of one regime only, nothing to compare."
    controls = ", ".join(f"{control} {_spread(item.controls[name][control])}" for control in CONTROLS)
    words = f"{label(item.layer)}: {_claim(item, name, what)} Random routers: {controls}."
    for other in alike:
        words += f" Within {other.group} alone: {_claim(other, name, what)}"
    return words


def _claim(item: Comparison, name: str, what: str) -> str:
    """What a difference shows, from the numbers alone."""
    value, found = item.differences[name], verdict(item, name)
    if found == "too few scenes":
        scenes = " and ".join(f"{item.parts[regime].scenes} {regime}" for regime in REGIMES)
        return f"too few scenes for a verdict ({scenes}; {_signed(value)})."
    if found == "no difference shown" or value.low is None or value.high is None:
        return f"no difference in {what} shown ({_signed(value)})."
    side, _, chance = found.partition(", ")
    low, high = sorted((abs(value.low), abs(value.high)))
    random = sum(map(len, item.controls[name].values()))
    learnt = (
        "random routers show as much, so it need not be learnt"
        if chance
        else f"none of {random} random routers shows as much"
    )
    return f"corner cases use {abs(value.value):.3f} [{low:.3f}, {high:.3f}] {side} {what}; {learnt}."


def _differences(comparisons: Sequence[Comparison]) -> str:
    """The effective number by layer and kind of token: all questions, then like with like."""
    rows = [["layer", "tokens", "questions", "regular", "corner", "difference", *CONTROLS, "corner cases use"]]
    name = "exp_entropy"
    for item in comparisons:
        if item.differences and item.group.task == ALL:
            values = [f"{item.parts[regime].readings[name].value:.2f}" for regime in REGIMES]
            controls = [_spread(item.controls[name][control]) for control in CONTROLS]
            where = [label(item.layer), item.layer.tokens, str(item.group)]
            rows.append([*where, *values, _signed(item.differences[name]), *controls, verdict(item)])
    return table(rows)


def _weights(comparisons: Sequence[Comparison]) -> str:
    rows = [["layer", "tokens", "router", "distance", "regime", "weight of each expert", "load", "dead"]]
    for item in comparisons:
        if item.group == (ALL, ALL):
            layer = item.layer
            for regime, part in item.parts.items():
                where = [label(layer), layer.tokens, layer.router, f"{layer.distance:.2f}", regime]
                rows.append([*where, *_cells(part)])
    return table(rows)


def _cells(part: Part) -> list[str]:
    weights = " ".join(f"{value.value:.2f}" for value in part.weights)
    loads = " ".join(f"{value:.2f}" for value in part.load)
    return [weights, loads, " ".join(map(str, part.dead)) or "none"]


def _signed(value: Value) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:+.3f}"
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{deviation}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in rows]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], *lines[1:]]).replace("\n", f"\n|-{rule}-|\n", 1)


# --- figure ---------------------------------------------------------------------------------------------------------

_COLOURS = {"regular": "#4477aa", "corner": "#ee7733"}
_BAR, _GAP, _HEIGHT, _LEFT, _TOP, _COLUMNS = 18, 16, 120, 44, 64, 4


def figure(comparisons: Sequence[Comparison]) -> str:
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


def _panel(item: Comparison, top: float) -> Iterator[str]:
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
