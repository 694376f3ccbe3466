"""The table of scores with intervals, one per set of questions, and the differences between rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import ALL, QuestionSet, set_of
from drivedistill.records import Score
from drivedistill.report.artefacts import DifferenceCell
from drivedistill.report.cells import gap_cell
from drivedistill.report.evidence import Evidence, ReportRow, Run
from drivedistill.report.markup import Html, Section, el, join, missing, paragraph, table
from drivedistill.report.quality import PLACE, REGIMES, Figure, gap, pooled
from drivedistill.report.roles import Roles

COLUMNS = {
    "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "avg": "Avg", "exact_match": "Exact match",
    "match_f1": "Match F1", "meta_accuracy": "Meta-action", "judge": "Judge", "challenge_final": "Final score",
    "calibration_error": "Calibration error ↓",
}  # fmt: skip
"""Metrics that a table shows where they exist, in this order, as a head of a column calls them."""
MOST = 7


def scores(evidence: Evidence, roles: Roles) -> Section:
    """The section."""
    scored = [row for row in evidence.rows if any(run.scores for run in row.runs)]
    title = "Scores, regular and corner"
    parts: list[Html] = []
    if scored:
        places = sorted({set_of(score) for row in scored for run in row.runs for score in _scores(run)}, key=_order)
        parts = [
            el("p", "★ marks the highest figure among the students (the lowest where lower is better); it is no difference by "
               "itself. Brackets: 95 % intervals over scenes and, with several seeds, over seeds; ± is the standard "
               "deviation over seeds where there is no interval."),
            *(_table(scored, place, roles) for place in places),
        ]  # fmt: skip
    else:
        parts.append(missing("No run was scored.", "drivedistill score RUN/predictions/FILE.jsonl"))
    return Section("scores", title, join([*parts, _right_differences(evidence, roles), _table_differences(evidence)]))


def _order(place: QuestionSet) -> tuple[bool, str, str]:
    return place.regime != "regular", "" if place.dataset == "drivelm" else place.dataset, place.split


def _scores(run: Run) -> Iterator[Score]:
    """The scores of whole sets."""
    yield from (score for score in run.scores if score.task == ALL and not score.group and score.name in METRICS)


def _of(row: ReportRow, place: QuestionSet, name: str) -> list[Score]:
    """A metric of a set, at most one of every run."""
    found = [[score for score in _scores(run) if set_of(score) == place and score.name == name] for run in row.runs]
    return [mine[0] for mine in found if mine]


def _table(rows: Sequence[ReportRow], place: QuestionSet, roles: Roles) -> Html:
    there = [name for name in COLUMNS if any(_of(row, place, name) for row in rows)]
    names = there[:MOST]
    cells = {(row.name, name): _of(row, place, name) for row in rows for name in names}
    best = {name: _best(rows, cells, name, roles) for name in names}
    lines = []
    for row in rows:
        line: list[str] = [_row_name(row)]
        for name in names:
            line.append(_cell(row, place.regime, name, cells[row.name, name], best=row.name == best[name]))
        if any(cells[row.name, name] for name in names):
            lines.append(line)
    counts = [score.n for found in cells.values() for score in found]
    caption = f"{_data(place)}, {place.split}: {max(counts, default=0):,} questions"
    if there[MOST:]:
        caption += f"; not shown: {', '.join(COLUMNS[name] for name in there[MOST:])}"
    return table(["", *(COLUMNS[name] for name in names)], lines, caption)


def _data(place: QuestionSet) -> str:
    names = {"drivelm": "DriveLM", "coda_lm": "CODA-LM", "senna": "Senna"}
    return f"{PLACE.get(place.regime, place.regime).capitalize()}, {names.get(place.dataset, place.dataset)}"


def _row_name(row: ReportRow) -> Html:
    seeds = len(row.runs)
    return join([row.label, el("small", f" {seeds} seeds")] if seeds > 1 else [row.label])


def _best(rows: Sequence[ReportRow], cells: dict[tuple[str, str], list[Score]], name: str, roles: Roles) -> str | None:
    """The row with the best mean among those that are not the teacher; None for a single one or a tie."""
    sign = 1 if METRICS[name].higher_is_better else -1
    means = {
        row.name: round(sign * pooled(found).value, 2)
        for row in rows
        if row is not roles.teacher and (found := cells[row.name, name])
    }
    top = [row for row, value in means.items() if value == max(means.values())]
    return top[0] if len(means) > 1 and len(top) == 1 else None


def _cell(row: ReportRow, regime: str, name: str, found: Sequence[Score], *, best: bool) -> Html:
    if not found:
        return el("span", "-", class_="none")
    metric = METRICS[name]
    figure = pooled(found)
    value = f"{figure.value:.{metric.decimals}f}"
    parts = [el("strong", value, el("span", " ★", title="best of the students")) if best else el("span", value)]
    if figure.low is not None and figure.high is not None:
        parts.append(el("small", f"[{figure.low:.{metric.decimals}f}, {figure.high:.{metric.decimals}f}]"))
    elif len(found) > 1:
        values = [score.value * metric.factor for score in found]
        parts.append(el("small", f"± {_deviation(values):.{metric.decimals}f}"))
    published = row.published.get(regime, {}).get(metric.label.partition(" (")[0].strip())
    if published is not None:
        parts.append(el("small", f"paper {published:g}"))
    return join(parts, " ")


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


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
        rows.append([pair, _data(QuestionSet(line.regime, line.dataset, line.split)), *figures])
    whole = table(
        ["", "questions", *columns], rows, "Differences that the table names, paired by seed and scene", left=2
    )
    note = "▲ better, ▼ worse; no mark: no difference shown. ± is the standard deviation over seeds where there is no interval."
    return el("details", el("summary", f"All {len(rows)} differences of the table"), paragraph(note), whole)


def _difference(cell: DifferenceCell | None) -> Html:
    if cell is None:
        return el("span", "-", class_="none")
    mark = {"better": " ▲", "worse": " ▼", "too few scenes": " ?"}.get(cell.verdict or "", "")
    if cell.low is None or cell.high is None:
        spread = f"± {cell.sd:.2f}" if cell.sd is not None else ""
    else:
        spread = Figure(0, cell.low, cell.high).text("+.2f").partition(" ")[2]
    return join([f"{cell.mean:+.2f}{mark}", el("small", spread)], " ")
