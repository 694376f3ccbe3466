"""Row A minus row B, as far as the same questions and the same seeds can tell.

Metrics that are means over samples (exact match, ROUGE-L): every difference is one of two answers to one question, and
the interval comes from drawing whole scenes and whole seeds (`interval.paired_interval`). BLEU-4, METEOR and Avg are
properties of a whole set of answers, so there is one difference per seed: mean and standard deviation over seeds only.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from drivedistill.ablate.card import COLUMNS, Table
from drivedistill.ablate.figures import Place, figure, places_of
from drivedistill.ablate.plan import PlannedRun, run_name
from drivedistill.evaluate.interval import paired_interval
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.text import Tokenizer, rouge_l_each
from drivedistill.records import Prediction, Score, read_jsonl

Answers = dict[str, Prediction]
"""Sample id -> scored answer of one run at one place."""
Values = dict[str, dict[str, float]]
"""Metric -> sample id -> value in the papers' scale."""

SAMPLE_WISE = ("rouge_l", "exact_match")


def differences(table: Table, done: Sequence[PlannedRun], scores: Mapping[str, list[Score]]) -> list[dict[str, Any]]:
    """A - B for every pair of rows with a finished seed in common, at every place, for every column.

    Args:
        table: Names the pairs.
        done: Finished runs.
        scores: Run -> its scores.

    Returns:
        Rows with `a`, `b`, `seeds`, the place and `figures`: column -> `mean`, `sd` over seeds, `low` and `high` (None
        for corpus metrics), `n`. Pairs without a common seed are left out.

    Raises:
        InputError: Answers cannot be read.
        RunError: Java failed.
    """
    seeds = {row.name: [run.seed for run in done if run.row == row.name] for row in table.rows}
    pairs = [(a, b, [seed for seed in seeds[a] if seed in seeds[b]]) for a, b in table.differences]
    needed = {run_name(row, seed) for a, b, common in pairs for row in (a, b) for seed in common}
    answers = {run.name: _answers(run, table) for run in done if run.name in needed}
    values = _values(answers, table.score.tokenizer)
    found = []
    for a, b, common in pairs:
        names = [(run_name(a, seed), run_name(b, seed)) for seed in common]
        for place in places_of(scores[name] for pair in names for name in pair):
            figures = {column: _difference(column, place, names, scores, answers, values) for column in table.columns}
            figures = {column: cell for column, cell in figures.items() if cell is not None}
            if figures:
                found.append({"a": a, "b": b, "seeds": common, **place._asdict(), "figures": figures})
    return found


def _difference(
    column: str,
    place: Place,
    names: Sequence[tuple[str, str]],
    scores: Mapping[str, list[Score]],
    answers: Mapping[str, Mapping[Place, Answers]],
    values: Mapping[tuple[str, Place], Values],
) -> dict[str, Any] | None:
    """One cell; None where one of the rows was not scored."""
    found = [(figure(scores[a], place, column), figure(scores[b], place, column)) for a, b in names]
    deltas = [a[0] - b[0] for a, b in found if a is not None and b is not None]
    if len(deltas) < len(names):
        return None
    cell: dict[str, Any] = {
        "mean": round(statistics.fmean(deltas), 4),
        "sd": round(statistics.stdev(deltas), 4) if len(deltas) > 1 else None,
        "low": None,
        "high": None,
        "n_seeds": len(deltas),
        "n": min(pair[0][1] for pair in found if pair[0] is not None),
    }
    metric = COLUMNS[column]
    if metric in SAMPLE_WISE:
        scene_of = {id: answer.scene for id, answer in answers[names[0][0]][place].items()}
        by_run = [(values[a, place][metric], values[b, place][metric]) for a, b in names]
        ids = [id for id in scene_of if all(id in a and id in b for a, b in by_run)]
        rows = [[a[id] - b[id] for id in ids] for a, b in by_run]
        low, high = paired_interval([scene_of[id] for id in ids], rows, seed=0)
        cell |= {"low": low if low is None else round(low, 4), "high": high if high is None else round(high, 4)}
    return cell


def _answers(run: PlannedRun, table: Table) -> dict[Place, Answers]:
    """The run's answers that have a reference, by place."""
    found: dict[Place, Answers] = {}
    for file in run.predictions(table.score).values():
        for row in read_jsonl(file, Prediction):
            if row.reference is not None:
                found.setdefault(Place(row.regime, row.dataset, row.split), {})[row.id] = row
    return found


def _values(answers: Mapping[str, Mapping[Place, Answers]], tokenizer: Tokenizer) -> dict[tuple[str, Place], Values]:
    """The sample-wise metrics of every answer."""
    groups = {(name, place): rows for name, places in answers.items() for place, rows in places.items()}
    pairs = {key: [(row.reference or "", row.prediction) for row in rows.values()] for key, rows in groups.items()}
    rouge = rouge_l_each(pairs, tokenizer=tokenizer) if pairs else {}
    made: dict[tuple[str, Place], Values] = {}
    for key, rows in groups.items():
        each = {"rouge_l": rouge[key], "exact_match": [float(a == b) for a, b in pairs[key]]}
        made[key] = {
            metric: {id: METRICS[metric].factor * value for id, value in zip(rows, each[metric], strict=True)}
            for metric in SAMPLE_WISE
        }
    return made
