"""Does a model know when it is wrong: the confidence of its answers beside how many of them are right."""

from __future__ import annotations

import statistics

from drivedistill.evaluate.calibration import curves
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.report.cells import none_cell
from drivedistill.report.evidence import Evidence, ReportRow
from drivedistill.report.markup import Html, el, join, paragraph, table
from drivedistill.report.score_table import row_name, score_cell, scores_of, set_name, sets_of

COLUMNS = {
    "brier": "Brier score ↓",
    "auroc": "AUROC",
    "accuracy_at_50": "Surer half right, %",
    "calibration_error": "Calibration error, % ↓",
}
NOTE = (
    "Confidence is the mean probability of the tokens a model wrote. The Brier score is the mean of (confidence − right)²; "
    "0 is best, 0.25 what a constant 50 % gets. AUROC is how often a right answer is surer than a wrong one: 0.5 by chance. "
    "The calibration error has no interval and grows where there are few answers; compare Brier scores."
)


def calibration(evidence: Evidence) -> Html:
    """A table for every set whose answers are right or wrong; nothing where no score knows of a confidence."""
    rows = evidence.rows
    places = [place for place in sets_of(rows, ("confidence", "brier")) if place not in evidence.free_text]
    if not places:
        return Html("")
    tables = [_table([row for row in rows if scores_of(row, place, "confidence")], place) for place in places]
    head = el("summary", "Do they know when they are wrong? Confidence against correctness")
    return el("details", head, paragraph(NOTE), join(tables))


def _table(rows: list[ReportRow], place: QuestionSet) -> Html:
    lines = [
        [
            row_name(row),
            score_cell(scores_of(row, place, "confidence")),
            _right(row, place),
            *(score_cell(scores_of(row, place, name)) for name in COLUMNS),
        ]
        for row in rows
    ]
    counts = [score.n for row in rows for score in scores_of(row, place, "confidence")]
    caption = f"{set_name(place)}, {place.split}: {max(counts):,} answers with a confidence"
    return table(["", "Confidence, %", "Right, %", *COLUMNS.values()], lines, caption)


def _right(row: ReportRow, place: QuestionSet) -> Html:
    """The share of right answers among those with a confidence, mean over runs."""
    found = [curve for run in row.runs for curve in curves(run.answers)]
    shares = [100 * curve["accuracy"] for curve in found if place == tuple(curve[name] for name in place._fields)]
    return join([f"{statistics.fmean(shares):.2f}"]) if shares else none_cell()
