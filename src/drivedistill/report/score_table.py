"""Scores of all rows side by side, one table per set of questions."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence

from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import ALL, QuestionSet, set_of
from drivedistill.records import Score
from drivedistill.report.cells import none_cell
from drivedistill.report.evidence import ReportRow, Run
from drivedistill.report.markup import Html, el, join, table
from drivedistill.report.quality import PLACE, pooled

MOST = 7
"""Columns; what exists beyond is named below the table."""


def sets_of(rows: Sequence[ReportRow], names: Collection[str]) -> list[QuestionSet]:
    """The sets of questions that have one of some scores: regular ones first, DriveLM first."""
    found = {set_of(score) for row in rows for run in row.runs for score in _scores(run) if score.name in names}
    return sorted(found, key=_order)


def _order(place: QuestionSet) -> tuple[bool, str, str]:
    return place.regime != "regular", "" if place.dataset == "drivelm" else place.dataset, place.split


def _scores(run: Run) -> Iterator[Score]:
    """The scores of whole sets."""
    yield from (score for score in run.scores if score.task == ALL and not score.group and score.name in METRICS)


def scores_of(row: ReportRow, place: QuestionSet, name: str) -> list[Score]:
    """A metric of a set, at most one of every run."""
    found = [[score for score in _scores(run) if set_of(score) == place and score.name == name] for run in row.runs]
    return [mine[0] for mine in found if mine]


def score_table(
    rows: Sequence[ReportRow], place: QuestionSet, columns: Mapping[str, str], teacher: ReportRow | None
) -> Html:
    """A row for every model that has a score of the set.

    Args:
        rows: Models.
        place: The set of questions.
        columns: Metric -> head of its column; those that nobody has are left out.
        teacher: The row that takes no part in who is best.
    """
    there = [name for name in columns if any(scores_of(row, place, name) for row in rows)]
    names = there[:MOST]
    cells = {(row.name, name): scores_of(row, place, name) for row in rows for name in names}
    best = {name: _best(rows, cells, name, teacher) for name in names}
    lines = []
    for row in rows:
        line: list[str] = [row_name(row)]
        for name in names:
            published = row.published.get(place.regime, {}).get(METRICS[name].label.partition(" (")[0].strip())
            line.append(score_cell(cells[row.name, name], best=row.name == best[name], published=published))
        if any(cells[row.name, name] for name in names):
            lines.append(line)
    counts = [score.n for found in cells.values() for score in found]
    caption = f"{set_name(place)}, {place.split}: {max(counts, default=0):,} questions"
    if there[MOST:]:
        caption += f"; not shown: {', '.join(columns[name] for name in there[MOST:])}"
    return table(["", *(columns[name] for name in names)], lines, caption)


def set_name(place: QuestionSet) -> str:
    """`Regular roads, DriveLM`."""
    names = {"drivelm": "DriveLM", "coda_lm": "CODA-LM", "senna": "Senna"}
    return f"{PLACE.get(place.regime, place.regime).capitalize()}, {names.get(place.dataset, place.dataset)}"


def row_name(row: ReportRow) -> Html:
    """A row's label, and its number of seeds where there are several."""
    seeds = len(row.runs)
    return join([row.label, el("small", f" {seeds} seeds")] if seeds > 1 else [row.label])


def _best(
    rows: Sequence[ReportRow], cells: Mapping[tuple[str, str], list[Score]], name: str, teacher: ReportRow | None
) -> str | None:
    """The row with the best mean among those that are not the teacher; None for a single one or a tie."""
    sign = 1 if METRICS[name].higher_is_better else -1
    means = {
        row.name: round(sign * pooled(found).value, 2)
        for row in rows
        if row is not teacher and (found := cells[row.name, name])
    }
    top = [row for row, value in means.items() if value == max(means.values())]
    return top[0] if len(means) > 1 and len(top) == 1 else None


def score_cell(found: Sequence[Score], *, best: bool = False, published: float | None = None) -> Html:
    """One metric of a row's runs: the mean, below it an interval or the deviation over seeds, and the paper's figure."""
    if not found:
        return none_cell()
    metric = METRICS[found[0].name]
    figure = pooled(found)
    value = f"{figure.value:.{metric.decimals}f}"
    parts = [el("strong", value, el("span", " ★", title="best of the students")) if best else el("span", value)]
    if figure.low is not None and figure.high is not None:
        parts.append(el("small", f"[{figure.low:.{metric.decimals}f}, {figure.high:.{metric.decimals}f}]"))
    elif len(found) > 1:
        deviation = statistics.stdev(score.value * metric.factor for score in found)
        parts.append(el("small", f"± {deviation:.{metric.decimals}f}"))
    if published is not None:
        parts.append(el("small", f"paper {published:g}"))
    return join(parts, " ")
