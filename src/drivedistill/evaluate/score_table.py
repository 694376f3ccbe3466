"""Scores for people and for scripts: a table, and the gate of `--fail-under`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from drivedistill.evaluate.metric import METRICS, Metric, nearest_metrics
from drivedistill.evaluate.rows import Place, place_of
from drivedistill.problems import InputError, Problem
from drivedistill.records import CLEAN, Score, Task
from drivedistill.tables import plain, with_interval

_BY_TASK = ("bleu_4", "meteor", "rouge_l", "avg", "exact_match")
"""What the table shows for single tasks; `results.json` has everything."""

_BY_GROUP = {
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
    "meta_accuracy": "meta-action",
    "meta_accuracy_constant": "commonest",
    "meta_danger": "cost of errors",
    "missed_vru": "missed road users",
    "rsdr_80": "RSDR-80",
}
"""What the tables of parts show, and their short headings."""


_WIDTH = 128
"""Columns of a screen."""


def format_scores(scores: Sequence[Score]) -> str:
    """A plain-text table: one column per set, regular before corner, tasks below the whole; several where one is too wide.

    BLEU, METEOR, ROUGE-L, exact match and accuracy are shown x100, as in the papers. Counts that are zero are left out,
    and so are the numbers of parts of the set: `format_groups` shows them.
    """
    scores = [row for row in scores if not row.group]
    places = sorted(dict.fromkeys(map(place_of, scores)), key=lambda place: place.regime != "regular")
    blocks = []
    while places:
        fits = next((n for n in range(len(places), 1, -1) if _width(_lines(scores, places[:n])) <= _WIDTH), 1)
        blocks.append("\n".join(plain(_lines(scores, places[:fits]))))
        places = places[fits:]
    return "\n".join([("\n" * 3).join(blocks), "", *_notes(scores)])


def _width(lines: Sequence[Sequence[str]]) -> int:
    return max(map(len, plain(lines)))


def _lines(scores: Sequence[Score], places: Sequence[Place]) -> list[list[str]]:
    """The cells of a table with a column for every place."""
    lines = [["", *(place.regime for place in places)], ["", *(f"{place.dataset} {place.split}" for place in places)]]
    lines.append(["", *(place.decode for place in places)])
    if any(place.condition != CLEAN for place in places):
        lines.append(["", *(place.condition for place in places)])
    names = [name for name in dict.fromkeys([*METRICS, *(row.name for row in scores)]) if _in_table(name)]
    order = ["all", *get_args(Task)]
    here = {(row.task, place_of(row), row.name): row for row in scores if place_of(row) in places}
    tasks = {task for task, *_ in here}
    for task in sorted(tasks, key=lambda task: (order.index(task) if task in order else 99, task)):
        lines += [[""] * (1 + len(places)), [task, *(_samples(here.get((task, place, "rouge_l"))) for place in places)]]
        for name in names if task == "all" else _BY_TASK:
            cells = [here.get((task, place, name)) for place in places]
            shown = [cell for cell in cells if cell is not None and _is_shown(cell)]
            if shown:
                lines.append([f"  {_metric(shown[0]).label}", *map(_cell, cells)])
    return lines


def format_groups(scores: Sequence[Score]) -> str:
    """Plain text: for each set and field a table with a line per value, `kind=snow`; a part of the numbers."""
    tables: dict[tuple[Place, str], list[Score]] = {}
    for row in scores:
        if row.group:
            tables.setdefault((place_of(row), row.group.partition("=")[0]), []).append(row)
    return "\n\n".join(_groups(place, field, rows) for (place, field), rows in tables.items())


def _groups(place: Place, field: str, rows: Sequence[Score]) -> str:
    here = {(row.group, row.name): row for row in rows}
    names = [name for name in _BY_GROUP if any(row.name == name for row in rows)]
    lines = [[field, "n", *(_BY_GROUP[name] for name in names)]]
    for group in dict.fromkeys(row.group for row in rows):
        cells = [_cell(here.get((group, name))) for name in names]
        lines.append([group.partition("=")[2], f"{here[group, 'exact_match'].n:,}", *cells])
    return "\n".join([f"By {field}: {' '.join(place).removesuffix(f' {CLEAN}')}", *plain(lines)])


def gate(scores: Sequence[Score], conditions: Sequence[str]) -> list[str]:
    """Check `--fail-under` conditions such as `bleu_4=45` or `corner.rouge_l=0.2`.

    A condition is `[qualifier.]...metric=threshold`. A qualifier is a regime, data set, split, task, way of decoding,
    condition of the pictures or part of the set (`kind=snow`); without a task and a part the whole set counts. Every
    row that fits must reach the threshold (or stay at or below it where lower is better). A threshold above 1 for a
    fraction is read as percent.

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
    path, _, number = condition.rpartition("=")
    *qualifiers, name = path.strip().split(".")
    known = sorted({row.name for row in scores} | METRICS.keys())
    if name not in known:
        raise _bad(condition, nearest_metrics(name, known), name)
    try:
        threshold = float(number)
    except ValueError:
        raise _bad(condition, "a number after `=`", repr(number)) from None
    rows = [row for row in scores if row.name == name and set(qualifiers) <= {*place_of(row), row.task, row.group}]
    if not {row.group for row in scores} & set(qualifiers):
        rows = [row for row in rows if not row.group]
    tasks = {row.task for row in scores}
    if not tasks & set(qualifiers):
        rows = [row for row in rows if row.task == "all"]
    if not rows:
        raise _bad(condition, "a metric and qualifiers that were scored", f"no row for {path.strip()}")
    failures = []
    for row in rows:
        limit = threshold / 100 if row.unit == "fraction" and threshold > 1 else threshold
        if not (row.value >= limit if row.higher_is_better else row.value <= limit):
            where = ".".join(filter(None, [row.regime, row.dataset, row.task, row.group, row.name]))
            side = "below" if row.higher_is_better else "above"
            failures.append(f"{where} = {row.value:.6g} ({row.unit}, n = {row.n}) is {side} {limit:.6g}")
    return failures


def _bad(condition: str, expected: str, found: str) -> InputError:
    remedy = "write it like bleu_4=45 or corner.rouge_l=0.2"
    return InputError(Problem("command line", f"--fail-under {condition}", expected, found, remedy))


def _in_table(name: str) -> bool:
    return name not in METRICS or METRICS[name].in_table


def _is_shown(row: Score) -> bool:
    """A count of zero is no news; a share of zero is."""
    return bool(row.value) or row.higher_is_better or row.unit == "fraction"


def _samples(row: Score | None) -> str:
    return f"n = {row.n:,}" if row else "-"


def _metric(row: Score) -> Metric:
    """How to show a row; other stages' scores (their names are not in `METRICS`) are shown by their unit."""
    factor = 100 if row.unit == "fraction" else 1
    return METRICS.get(row.name) or Metric(row.name, row.unit, factor, higher_is_better=row.higher_is_better)


def _cell(row: Score | None) -> str:
    if row is None:
        return "-"
    metric = _metric(row)
    low, high = (None if bound is None else bound * metric.factor for bound in (row.low, row.high))
    return with_interval(row.value * metric.factor, low, high, f",.{metric.decimals}f")


def _notes(scores: Sequence[Score]) -> list[str]:
    notes = [
        f"Captions: {label}." for label in dict.fromkeys(row.implementation for row in scores if row.name == "bleu_4")
    ]
    if any(row.low is not None for row in scores):
        notes.append("[low, high]: 95 % bootstrap over scenes, 1,000 draws.")
    names = {row.name for row in scores}
    if "skipped_questions" in names and "challenge_final" not in names:
        notes.append("The challenge's final score needs a judge; its match is the F1 alone here.")
    return notes
