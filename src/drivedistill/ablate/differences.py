"""Row A minus row B, on the same questions and with the same seeds: `evaluate.compare` for a table.

Every column that is a function of sums over answers (BLEU, METEOR, ROUGE-L, CIDEr, Avg, exact match, ...) has an interval
over scenes and seeds, and a verdict. Others (a judge's ratings, the challenge's composed scores) have the mean and the
standard deviation over seeds of what `results.json` says.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from drivedistill.ablate.card import COLUMNS, Table
from drivedistill.ablate.figures import figure, places_of
from drivedistill.ablate.plan import PlannedRun, run_name
from drivedistill.evaluate.difference import Difference
from drivedistill.evaluate.difference import differences as measured_differences
from drivedistill.evaluate.families import measures_of
from drivedistill.evaluate.measured_values import MEASURED
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.evaluate.same_questions import Answers, Matched, match
from drivedistill.records import Prediction, Score, read_jsonl

_Key = tuple[str, QuestionSet, tuple[tuple[Any, ...], ...]]
"""Run, place, and of every answer its id and which measured values it keeps: another pair may keep others."""


class _Pair(NamedTuple):
    """Two rows at one place."""

    a: str
    b: str
    common: list[int]
    """Seeds that both rows have."""
    found: Matched

    @property
    def seeds(self) -> list[int]:
        """Those of which both runs answered this set."""
        return [self.common[place] for place in self.found.a.places]

    @property
    def sides(self) -> list[list[tuple[_Key, tuple[Prediction, ...]]]]:
        """The answers of the runs of A, and of B, each with the name under which they are measured once."""
        found = self.found
        first = found.a.runs[0]
        kept = tuple((row.id, *(getattr(row, field) is not None for field in MEASURED)) for row in first)
        return [
            [((run_name(row, seed), found.questions, kept), rows) for seed, rows in zip(self.seeds, runs, strict=True)]
            for row, runs in ((self.a, found.a.runs), (self.b, found.b.runs))
        ]


def differences(table: Table, done: Sequence[PlannedRun], scores: Mapping[str, list[Score]]) -> list[dict[str, Any]]:
    """A - B for every pair of rows with a finished seed in common, at every place, for every column.

    Args:
        table: Names the pairs.
        done: Finished runs.
        scores: Run -> its scores.

    Returns:
        Rows with `a`, `b`, `seeds`, the place, `left_out` (questions that only some runs of A, of B, answered), `without`
        (common seeds of which a run did not answer this set) and `figures`: column -> `mean`, `sd` over seeds, `low`,
        `high`, `n_seeds`, `n`, `n_scenes` and `verdict` of A, in the papers' scale; None where there is none. Pairs
        without a common seed or place are left out.

    Raises:
        InputError: Answers cannot be read, or the same ids are other questions.
        RunError: Java failed.
    """
    order = places_of(scores.values())
    pairs = _pairs(table, done, order)
    answers = {key: rows for pair in pairs for side in pair.sides for key, rows in side if rows}
    measures = measures_of(answers, meteor=table.score.meteor, tokenizer=table.score.tokenizer)
    names = [COLUMNS[column] for column in table.columns]
    found = []
    for pair in pairs:
        a, b = ([measures.get(key, {}) for key, _ in side] for side in pair.sides)
        deltas = measured_differences(a, b, [item.scene for item in pair.found.a.runs[0]], names=names)
        cells = {column: _cell(column, pair, deltas.get(COLUMNS[column]), scores) for column in table.columns}
        cells = {column: cell for column, cell in cells.items() if cell is not None}
        if cells:
            head = {"a": pair.a, "b": pair.b, "seeds": pair.seeds, **pair.found.questions._asdict()}
            without = [seed for seed in pair.common if seed not in pair.seeds]
            found.append({**head, "left_out": pair.found.left_out, "without": without, "figures": cells})
    return found


def _pairs(table: Table, done: Sequence[PlannedRun], order: Sequence[QuestionSet]) -> list[_Pair]:
    """What is compared: places in the table's order, seeds that both rows have."""
    seeds = {row.name: [run.seed for run in done if run.row == row.name] for row in table.rows}
    shared = [(a, b, [seed for seed in seeds[a] if seed in seeds[b]]) for a, b in table.differences]
    needed = {run_name(row, seed) for a, b, common in shared for row in (a, b) for seed in common}
    answers = {run.name: _read(run, table) for run in done if run.name in needed}
    pairs = []
    for a, b, common in shared:
        sides = [[answers[run_name(row, seed)] for seed in common] for row in (a, b)]
        places = [[{set_of(row) for row in run.rows} for run in side] for side in sides]
        both = {place for of_a, of_b in zip(*places, strict=True) for place in of_a & of_b}
        if both:
            chosen = [
                [Answers(run.file, [row for row in run.rows if set_of(row) in both]) for run in side] for side in sides
            ]
            matched = sorted(match(*chosen, common=True, paired=True), key=lambda found: order.index(found.questions))
            pairs += [_Pair(a, b, common, found) for found in matched]
    return pairs


def _read(run: PlannedRun, table: Table) -> Answers:
    files = run.predictions(table.score).values()
    return Answers(", ".join(map(str, files)), [row for file in files for row in read_jsonl(file, Prediction)])


def _cell(
    column: str, pair: _Pair, delta: Difference | None, scores: Mapping[str, list[Score]]
) -> dict[str, Any] | None:
    """One cell; None where one of the rows was not scored."""
    if delta is not None:
        factor = METRICS[COLUMNS[column]].factor
        scaled = {name: None if value is None else round(value * factor, 4) for name, value in
                  (("mean", delta.mean), ("sd", delta.sd), ("low", delta.low), ("high", delta.high))}  # fmt: skip
        counts = {"n_seeds": len(pair.seeds), "n": delta.n, "n_scenes": delta.num_scenes}
        return scaled | counts | {"verdict": delta.verdict}
    a, b = ([figure(scores[run_name(row, seed)], pair.found.questions, column) for seed in pair.seeds]
            for row in (pair.a, pair.b))  # fmt: skip
    values = [(x.value - y.value, min(x.n, y.n)) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if len(values) < len(pair.seeds):
        return None
    deltas = [value for value, _ in values]
    sd = round(statistics.stdev(deltas), 4) if len(deltas) > 1 else None
    cell = {"mean": round(statistics.fmean(deltas), 4), "sd": sd, "low": None, "high": None, "n_seeds": len(deltas)}
    return cell | {"n": min(n for _, n in values), "n_scenes": None, "verdict": None}
