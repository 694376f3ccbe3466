"""From finished runs to the figures of a table: means over seeds, what the paper says, what a run cost.

All figures are in the papers' scale (BLEU-4, METEOR, ROUGE-L and exact match times 100), as `metric.METRICS` says.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from drivedistill.ablate.card import COLUMNS, Table, TableRow
from drivedistill.ablate.differences import differences
from drivedistill.ablate.figures import Figure, figure, places_of, read_scores
from drivedistill.ablate.jobs import Ending
from drivedistill.ablate.plan import PlannedRun
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.metrics_file import read_metrics
from drivedistill.records import Score

DIAGNOSTICS = ("alpha", "alpha_corner", "trusted", "mined", "experts", "expert_distance")
"""What the loop logs of CLKD's parts; the last record of each is kept."""

FACTS = ("params_m", "activated_m", "trainable_m", "seconds", "steps", "best_step", "device", "threads", "git_commit")


def tabulate(table: Table, runs: Sequence[PlannedRun], endings: Mapping[str, Ending]) -> dict[str, Any]:
    """Everything about a table, ready for `table.json`.

    Args:
        table: The table.
        runs: All runs of the table, started or not.
        endings: How the runs of this call ended.

    Raises:
        InputError: Answers cannot be read.
        RunError: Java failed.
    """
    scores = {run.name: read_scores(run.folder) for run in runs if run.state(table.score) == "done"}
    places = places_of(scores.values())
    labels = {row.implementation for rows in scores.values() for row in rows if row.name in ("bleu_4", "exact_match")}
    return {
        "name": table.name,
        "about": table.about,
        "published_by": table.published_by,
        "columns": {column: METRICS[COLUMNS[column]].unit for column in table.columns},
        "implementation": sorted(labels),
        "score": table.score.model_dump(mode="json"),
        "rows": [_row(table, row, [run for run in runs if run.row == row.name], places, scores, endings)
                 for row in table.rows],
        "differences": differences(table, [run for run in runs if run.name in scores], scores),
    }  # fmt: skip


def _row(
    table: Table,
    row: TableRow,
    runs: Sequence[PlannedRun],
    places: Sequence[QuestionSet],
    scores: Mapping[str, list[Score]],
    endings: Mapping[str, Ending],
) -> dict[str, Any]:
    done = [run for run in runs if run.name in scores]
    lines = []
    for place in places:
        cells = {column: _cell([figure(scores[run.name], place, column) for run in done]) for column in table.columns}
        if any(cell["mean"] is not None for cell in cells.values()):
            lines.append({**place._asdict(), "figures": cells})
    return {
        "name": row.name,
        "label": row.label or row.name,
        "seeds": [run.seed for run in done],
        "published": row.published,
        "published_cost": row.published_cost,
        "places": lines,
        "cost": {fact: _mean([run.facts().get(fact) for run in done]) for fact in FACTS[:4]},
        "runs": [_run(table, run, scores, endings) for run in runs],
    }


def _cell(found: Sequence[Figure | None]) -> dict[str, Any]:
    """Mean and spread over seeds; of one seed the interval over scenes."""
    figures = [item for item in found if item is not None]
    values = [item.value for item in figures]
    spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
    low, high = (figures[0].low, figures[0].high) if len(figures) == 1 else (None, None)
    questions = figures[0].n if figures else 0
    cell = {"mean": _mean(values), "sd": spread, "low": _mean([low]), "high": _mean([high])}
    return cell | {"n_seeds": len(values), "n": questions}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.fmean(known), 4) if known else None


def _run(
    table: Table, run: PlannedRun, scores: Mapping[str, list[Score]], endings: Mapping[str, Ending]
) -> dict[str, Any]:
    """One run: how it stands, what it cost, its diagnostics and its figures."""
    ending, facts = endings.get(run.name), run.facts()
    entry: dict[str, Any] = {"seed": run.seed, "folder": str(run.folder), "state": status(table, run, ending)}
    entry |= {fact: facts[fact] for fact in FACTS if fact in facts}
    entry["diagnostics"] = diagnostics(run)
    entry["figures"] = [_in_papers_scale(row) for row in scores.get(run.name, [])]
    return entry


def _in_papers_scale(row: Score) -> dict[str, Any]:
    """A row of `results.json`, its value and interval as papers print them."""
    factor = METRICS[row.name].factor
    scaled = {name: None if value is None else value * factor for name, value in
              (("value", row.value), ("low", row.low), ("high", row.high))}  # fmt: skip
    return row.model_dump(include={"name", "n", "dataset", "split", "regime", "task", "decode"}) | scaled


def status(table: Table, run: PlannedRun, ending: Ending | None) -> str:
    """How a run stands, in words."""
    state = run.state(table.score)
    if state == "done":
        return "done"
    if ending is not None and ending.waited_for:
        return f"not run: {ending.waited_for} failed"
    if ending is not None and ending.code and not ending.stopped:
        return f"failed (exit code {ending.code})"
    return {"new": "not run", "begun": "not finished", "changed": "made by another recipe, or with other runs"}[state]


def diagnostics(run: PlannedRun) -> dict[str, Any]:
    """The last of each of `DIAGNOSTICS` in `metrics.jsonl`, with its step; empty where nothing was logged."""
    last: dict[str, Any] = {}
    for record in read_metrics(run.folder / "metrics.jsonl"):
        last |= {key: {"step": record["step"], "value": record[key]} for key in DIAGNOSTICS if key in record}
    return last
