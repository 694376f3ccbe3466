"""Single figures of a run's `results.json`, in the papers' scale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from drivedistill.ablate.card import COLUMNS
from drivedistill.evaluate.metric import METRICS
from drivedistill.records import Score


class Place(NamedTuple):
    """What is scored together."""

    regime: str
    dataset: str
    split: str


def read_scores(run: Path) -> list[Score]:
    """The rows of a run's `results.json`."""
    return [Score.model_validate(row) for row in json.loads((run / "results.json").read_text("utf-8"))]


def places_of(scores: Iterable[Sequence[Score]]) -> list[Place]:
    """Every place that was scored, regular ones first."""
    found = dict.fromkeys(Place(row.regime, row.dataset, row.split) for rows in scores for row in rows)
    return sorted(found, key=lambda place: place.regime != "regular")


def figure(scores: Sequence[Score], place: Place, column: str) -> tuple[float, int] | None:
    """A column's figure at a place, and the number of its samples; None where it was not scored."""
    name = COLUMNS[column]
    for row in scores:
        if (row.regime, row.dataset, row.split) == place and row.name == name and row.task == "all":
            return row.value * METRICS[name].factor, row.n
    return None
