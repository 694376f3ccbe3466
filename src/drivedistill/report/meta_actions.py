"""How well every meta-action is found, beside what always saying the commonest one gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from drivedistill.data.meta_action import PATHS, SPEEDS
from drivedistill.evaluate.meta_actions import truths
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.report.evidence import Evidence, ReportRow
from drivedistill.report.markup import Html, el, join, paragraph, table
from drivedistill.report.score_table import row_name, score_cell, scores_of, set_name, sets_of

ACTIONS = (*SPEEDS, *PATHS)
NOTE = (
    "F1 of every action, ×100, strictly read; the last column is that of the commonest action, said always. An action that the "
    "references hardly have says little: its number stands beside it."
)


def meta_actions(evidence: Evidence) -> Html:
    """A table for every set with reference actions; nothing where there is none."""
    rows = evidence.rows
    places = sets_of(rows, [_score(action) for action in ACTIONS])
    if not places:
        return Html("")
    tables = [_table([row for row in rows if scores_of(row, place, "meta_accuracy")], place) for place in places]
    return el("details", el("summary", "Every meta-action"), paragraph(NOTE), join(tables))


def _score(action: str, suffix: str = "") -> str:
    return f"meta_f1_{action.lower()}{suffix}"


def _table(rows: Sequence[ReportRow], place: QuestionSet) -> Html:
    counts = _references(rows, place)
    lines = []
    for action in ACTIONS:
        cells = [scores_of(row, place, _score(action)) for row in rows]
        if any(cells):
            constant = next(
                (found for row in rows if (found := scores_of(row, place, _score(action, "_constant")))), []
            )
            lines.append([action, f"{counts[action]:,}", *map(score_cell, cells), score_cell(constant[:1])])
    head = ["", "references", *map(row_name, rows), "always the commonest"]
    return table(head, lines, f"{set_name(place)}, {place.split}")


def _references(rows: Sequence[ReportRow], place: QuestionSet) -> Counter[str]:
    """How often the references of a set have every action, by the first row with answers to it."""
    for row in rows:
        for run in row.runs:
            known = filter(None, truths(item for item in run.answers if set_of(item) == place))
            if counts := Counter(part for action in known for part in (action.speed, action.path)):
                return Counter[str](counts)
    return Counter()
