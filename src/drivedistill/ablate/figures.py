"""Single figures of a run's `results.json`, in the papers' scale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from drivedistill.ablate.card import COLUMNS
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.records import Score


class Figure(NamedTuple):
    """One figure of a run."""

    value: float
    n: int
    """Samples that count."""
    low: float | None
    high: float | None
    """95 % interval over scenes, where the score has one."""


def read_scores(run: Path) -> list[Score]:
    """The rows of a run's `results.json`."""
    return [Score.model_validate(row) for row in json.loads((run / "results.json").read_text("utf-8"))]


def places_of(scores: Iterable[Sequence[Score]]) -> list[QuestionSet]:
    """Every place that was scored, regular ones first."""
    found = dict.fromkeys(set_of(row) for rows in scores for row in rows)
    return sorted(found, key=lambda place: place.regime != "regular")


def figure(scores: Sequence[Score], place: QuestionSet, column: str) -> Figure | None:
    """A column's figure at a place; None where it was not scored."""
    name = COLUMNS[column]
    factor = METRICS[name].factor
    for row in scores:
        if set_of(row) == place and row.name == name and row.task == "all" and not row.group:
            low, high = (None if bound is None else bound * factor for bound in (row.low, row.high))
            return Figure(row.value * factor, row.n, low, high)
    return None
