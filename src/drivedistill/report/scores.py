"""The table of scores with intervals, one per set of questions, and the differences between rows."""

from __future__ import annotations

from drivedistill.evaluate.rows import QuestionSet
from drivedistill.report.artefacts import DifferenceCell
from drivedistill.report.calibration import calibration
from drivedistill.report.cells import gap_cell, none_cell
from drivedistill.report.evidence import Evidence
from drivedistill.report.markup import Html, Section, el, join, missing, paragraph, table
from drivedistill.report.meta_actions import meta_actions
from drivedistill.report.quality import PLACE, REGIMES, Figure, gap
from drivedistill.report.roles import Roles
from drivedistill.report.score_table import score_table, set_name, sets_of

COLUMNS = {
    "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "avg": "Avg", "exact_match": "Exact match",
    "match_f1": "Match F1", "meta_accuracy": "Meta-action", "judge": "Judge", "challenge_final": "Final score",
}  # fmt: skip
"""Metrics that a table shows where they exist, in this order, as a head of a column calls them."""


def scores(evidence: Evidence, roles: Roles) -> Section:
    """The section."""
    scored = [row for row in evidence.rows if any(run.scores for run in row.runs)]
    title = "Scores, regular and corner"
    parts: list[Html] = []
    if scored:
        parts = [
            el("p", "★ marks the highest figure among the students (the lowest where lower is better); it is no difference by "
               "itself. Brackets: 95 % intervals over scenes and, with several seeds, over seeds; ± is the standard "
               "deviation over seeds where there is no interval."),
            *(score_table(scored, place, COLUMNS, roles.teacher) for place in sets_of(scored, COLUMNS)),
            calibration(evidence),
            meta_actions(evidence),
        ]  # fmt: skip
    else:
        parts.append(missing("No run was scored.", "drivedistill score RUN/predictions/FILE.jsonl"))
    return Section("scores", title, join([*parts, _right_differences(evidence, roles), _table_differences(evidence)]))


def _right_differences(evidence: Evidence, roles: Roles) -> Html:
    """Who answers more questions right than whom."""
    players = roles.players()
    pairs = [(a, b) for place, b in enumerate(players) for a in players[place + 1 :]]
    pairs = [(a, b) for a, b in pairs if a.answered() and b.answered()]
    if not pairs:
        return Html("")
    lines = []
    for a, b in pairs:
        gaps = [gap(a, b, regime, evidence.free_text) for regime in REGIMES]
        lines.append([f"{a.label} minus {b.label}", *map(gap_cell, gaps)])
    caption = "Right answers, percentage points, on the same questions"
    return join([
        el("h3", "Differences"),
        paragraph("Right: equal to the reference, case and space aside, or the same meta-action. Questions that are answered "
                  "in free text (CODA-LM) are not among them. An interval that covers zero shows no difference."),
        table(["", *(PLACE[regime] for regime in REGIMES)], lines, caption),
    ])  # fmt: skip


def _table_differences(evidence: Evidence) -> Html:
    """What `drivedistill ablate` compared."""
    if not evidence.differences:
        return Html("")
    labels = {row.name: row.label for row in evidence.rows}
    columns = list(dict.fromkeys(name for line in evidence.differences for name in line.figures))
    rows = []
    for line in evidence.differences:
        pair = f"{labels.get(line.a, line.a)} minus {labels.get(line.b, line.b)}"
        figures = [_difference(line.figures.get(name)) for name in columns]
        rows.append([pair, set_name(QuestionSet(line.regime, line.dataset, line.split)), *figures])
    whole = table(
        ["", "questions", *columns], rows, "Differences that the table names, paired by seed and scene", left=2
    )
    note = "▲ better, ▼ worse; no mark: no difference shown. ± is the standard deviation over seeds where there is no interval."
    return el("details", el("summary", f"All {len(rows)} differences of the table"), paragraph(note), whole)


def _difference(cell: DifferenceCell | None) -> Html:
    if cell is None:
        return none_cell()
    mark = {"better": " ▲", "worse": " ▼", "too few scenes": " ?"}.get(cell.verdict or "", "")
    value, _, spread = Figure(cell.mean, cell.low, cell.high).text("+.2f").partition(" ")
    if not spread and cell.sd is not None:
        spread = f"± {cell.sd:.2f}"
    return join([f"{value}{mark}", el("small", spread)], " ")
