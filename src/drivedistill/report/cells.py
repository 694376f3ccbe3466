"""Cells of tables: a number with its interval below it, a difference with what it shows."""

from __future__ import annotations

from drivedistill.evaluate.difference import Difference
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.report.markup import Html, el, join
from drivedistill.report.quality import Figure, percent


def none_cell() -> Html:
    """There is no such number."""
    return el("span", "-", class_="none")


def number_cell(figure: Figure, form: str) -> Html:
    """A number; its interval, smaller, below it."""
    number, _, spread = figure.text(form).partition(" ")
    return join([number, el("small", spread)], " ") if spread else join([number])


def gap_cell(found: Difference | str) -> Html:
    """A difference in percentage points, its interval, and a word where it shows nothing."""
    if isinstance(found, str):
        return el("span", "not compared", class_="none", title=found)
    cell = number_cell(percent(found.mean, found.low, found.high), "+.1f")
    if found.num_scenes < ENOUGH_SCENES:
        return join([cell, el("small", "too few scenes")], " ")
    if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
        return join([cell, el("small", "no difference shown")], " ")
    return cell
