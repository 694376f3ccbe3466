"""The use of experts for people: sentences and tables, made of the comparisons of `report.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

import numpy as np

from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.rows import ALL
from drivedistill.experts.observe import CONTROLS
from drivedistill.experts.report import DEAD, REGIMES, Part, RegimeComparison, Value, label, verdict
from drivedistill.tables import with_interval

_READ_ME = f"""\
Effective number: exponential of the entropy of a token's probabilities, between 1 and the number of experts; mean over
tokens. Brackets: 95 % interval, whole scenes drawn anew. Random routers were asked about the same tokens: `untrained` ones
have fresh weights, `permuted` ones the trained weights, on features in another order; mean ± standard deviation of the
differences that they show. Where a random router shows as much, the inputs alone may explain the difference.
Where the data sets of the two regimes differ, so do their questions and pictures: read the rows within one data set. With
fewer than {ENOUGH_SCENES} scenes of each regime nothing is claimed. Dead: less than {DEAD:.0%} of an even share of the use.
Experts are counted from 0. `experts.json` has all readings, by data set and task."""


def report(model: str, comparisons: Sequence[RegimeComparison]) -> str:
    """The content of `experts.md`, legible as it is."""
    parts = [f"# Experts of {model}", _asked(comparisons), "## Do corner cases use more experts?"]
    parts += ["\n".join(fill(f"- {sentence}", 120, subsequent_indent="  ") for sentence in sentences(comparisons))]
    if any(item.differences for item in comparisons):
        parts += [_differences(comparisons)]
    return "\n\n".join([*parts, "## Mean weight of every expert", _weights(comparisons), _READ_ME]) + "\n"


def _asked(comparisons: Sequence[RegimeComparison]) -> str:
    parts = comparisons[0].parts
    asked = (f"{part.questions:,} {regime} questions of {part.scenes} scenes" for regime, part in parts.items())
    return f"Teacher-forced passes over {' and '.join(asked)}."


def sentences(comparisons: Sequence[RegimeComparison]) -> Iterator[str]:
    """One for every layer, about all of its tokens; of `top_p` routers also about how many experts ran."""
    whole = [item for item in comparisons if item.layer.tokens == "all" and item.group.task == ALL]
    for item in whole:
        if item.group.dataset == ALL:
            alike = [other for other in whole if other.layer is item.layer and other is not item and other.differences]
            yield _sentence(item, alike, "exp_entropy", "effective experts")
            if item.layer.router == "top_p":
                yield _sentence(item, alike, "active", "running experts")


def _sentence(item: RegimeComparison, alike: Sequence[RegimeComparison], name: str, what: str) -> str:
    if not item.differences:
        return f"{label(item.layer)}: questions of one regime only, nothing to compare."
    controls = ", ".join(f"{control} {_spread(item.controls[name][control])}" for control in CONTROLS)
    words = f"{label(item.layer)}: {_claim(item, name, what)} Random routers: {controls}."
    for other in alike:
        words += f" Within {other.group} alone: {_claim(other, name, what)}"
    return words


def _claim(item: RegimeComparison, name: str, what: str) -> str:
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


def _differences(comparisons: Sequence[RegimeComparison]) -> str:
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


def _weights(comparisons: Sequence[RegimeComparison]) -> str:
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
    return with_interval(*value, "+.3f")


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{deviation}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in rows]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], *lines[1:]]).replace("\n", f"\n|-{rule}-|\n", 1)
