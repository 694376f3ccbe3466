"""Scores for people and for scripts: a table, and the gate of `--fail-under`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from drivedistill.evaluate.metric import METRICS, Metric
from drivedistill.problems import InputError, Problem
from drivedistill.records import Score, Task

_BY_TASK = ("bleu_4", "meteor", "rouge_l", "avg", "exact_match")
"""What the table shows for single tasks; `results.json` has everything."""

Column = tuple[str, str, str, str]
"""Regime, data set, split, way of decoding."""


def format_scores(scores: Sequence[Score]) -> str:
    """A plain-text table: one column per set, regular before corner, tasks below the whole.

    BLEU, METEOR, ROUGE-L, exact match and accuracy are shown x100, as in the papers. Counts that are zero are left out.
    """
    columns = sorted(dict.fromkeys(map(_column, scores)), key=lambda column: column[0] != "regular")
    lines = [["", *(column[0] for column in columns)], ["", *(" ".join(column[1:3]) for column in columns)]]
    lines.append(["", *(column[3] for column in columns)])
    names = dict.fromkeys([*METRICS, *(row.name for row in scores)])
    order = ["all", *get_args(Task)]
    for task in sorted(
        {row.task for row in scores}, key=lambda task: (order.index(task) if task in order else 99, task)
    ):
        here = {(_column(row), row.name): row for row in scores if row.task == task}
        lines += [[""] * (1 + len(columns)), [task, *(_samples(here, column) for column in columns)]]
        for name in names if task == "all" else _BY_TASK:
            cells = [here.get((column, name)) for column in columns]
            shown = [cell for cell in cells if cell is not None and (cell.value or cell.higher_is_better)]
            if shown:
                lines.append([f"  {_metric(shown[0]).label}", *map(_cell, cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join([*table, "", *_notes(scores)])


def gate(scores: Sequence[Score], conditions: Sequence[str]) -> list[str]:
    """Check `--fail-under` conditions such as `bleu_4=45` or `corner.rouge_l=0.2`.

    A condition is `[qualifier.]...metric=threshold`. A qualifier is a regime, data set, split, task or way of
    decoding; without a task the whole set counts. Every row that fits must reach the threshold (or stay at or below
    it where lower is better). A threshold above 1 for a fraction is read as percent.

    Returns:
        One sentence for each row that fails; empty when all pass.

    Raises:
        InputError: A condition is malformed, names an unknown metric, or fits no row.
    """
    failures: list[str] = []
    problems: list[Problem] = []
    for condition in conditions:
        try:
            failures += _failures(scores, condition)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return failures


def _failures(scores: Sequence[Score], condition: str) -> list[str]:
    path, _, number = condition.partition("=")
    *qualifiers, name = path.strip().split(".")
    known = sorted({row.name for row in scores} | METRICS.keys())
    if name not in known:
        raise _bad(condition, f"a metric: {', '.join(known)}", name)
    try:
        threshold = float(number)
    except ValueError:
        raise _bad(condition, "a number after `=`", repr(number)) from None
    rows = [row for row in scores if row.name == name and set(qualifiers) <= {*_column(row), row.task}]
    tasks = {row.task for row in scores}
    if not tasks & set(qualifiers):
        rows = [row for row in rows if row.task == "all"]
    if not rows:
        raise _bad(condition, "a metric and qualifiers that were scored", f"no row for {path.strip()}")
    failures = []
    for row in rows:
        limit = threshold / 100 if row.unit == "fraction" and threshold > 1 else threshold
        if not (row.value >= limit if row.higher_is_better else row.value <= limit):
            where = ".".join([row.regime, row.dataset, row.task, row.name])
            side = "below" if row.higher_is_better else "above"
            failures.append(f"{where} = {row.value:.6g} ({row.unit}, n = {row.n}) is {side} {limit:.6g}")
    return failures


def _bad(condition: str, expected: str, found: str) -> InputError:
    remedy = "write it like bleu_4=45 or corner.rouge_l=0.2"
    return InputError(Problem("command line", f"--fail-under {condition}", expected, found, remedy))


def _column(row: Score) -> Column:
    return row.regime, row.dataset, row.split, row.decode


def _samples(rows: dict[tuple[Column, str], Score], column: Column) -> str:
    row = rows.get((column, "rouge_l"))
    return f"n = {row.n:,}" if row else "-"


def _metric(row: Score) -> Metric:
    """How to show a row; other stages' scores (their names are not in `METRICS`) are shown by their unit."""
    factor = 100 if row.unit == "fraction" else 1
    return METRICS.get(row.name) or Metric(row.name, row.unit, factor, higher_is_better=row.higher_is_better)


def _cell(row: Score | None) -> str:
    if row is None:
        return "-"
    metric = _metric(row)
    text = f"{row.value * metric.factor:,.{metric.decimals}f}"
    if row.low is None or row.high is None:
        return text
    low, high = (f"{bound * metric.factor:,.{metric.decimals}f}" for bound in (row.low, row.high))
    return f"{text} [{low}, {high}]"


def _notes(scores: Sequence[Score]) -> list[str]:
    notes = [
        f"Captions: {label}." for label in dict.fromkeys(row.implementation for row in scores if row.name == "bleu_4")
    ]
    if any(row.low is not None for row in scores):
        notes.append("[low, high]: 95 % bootstrap over scenes, 1,000 draws. Corpus metrics have no interval.")
    names = {row.name for row in scores}
    if "skipped_questions" in names and "challenge_final" not in names:
        notes.append("The challenge's final score needs a judge; its match is the F1 alone here.")
    return notes
