"""Rows of `results.json`: what is scored together, and how a number becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drivedistill.evaluate.measure import Draws, Measure, draw_scenes, mean_of, measure_interval
from drivedistill.evaluate.metric import METRICS
from drivedistill.records import Prediction, Score

ALL = "all"
"""Every task."""


class QuestionSet(NamedTuple):
    """What is asked together, and compared."""

    regime: str
    dataset: str
    split: str


class Place(NamedTuple):
    """What is scored together: a set of questions, answered in one way."""

    regime: str
    dataset: str
    split: str
    decode: str
    condition: str


def set_of(item: Prediction | Score) -> QuestionSet:
    """The set of questions that a prediction or a score belongs to."""
    return QuestionSet(item.regime, item.dataset, item.split)


def place_of(item: Prediction | Score) -> Place:
    """Where a prediction or a score belongs."""
    return Place(*set_of(item), item.decode, item.condition)


@dataclass(frozen=True)
class Rows:
    """Makes the rows of one place."""

    place: Place
    seed: int

    def row(
        self,
        name: str,
        value: float,
        n: int,
        implementation: str,
        *,
        task: str = ALL,
        group: str = "",
        interval: tuple[float, float] | tuple[None, None] = (None, None),
    ) -> Score:
        """One row; its name is one of `METRICS`."""
        metric = METRICS[name]
        return Score(
            name=name,
            value=value,
            unit=metric.unit,
            n=n,
            task=task,
            group=group,
            low=interval[0],
            high=interval[1],
            higher_is_better=metric.higher_is_better,
            implementation=implementation,
            **self.place._asdict(),
        )

    def measured(
        self, measures: Mapping[str, Measure], draws: Draws | None, *, task: str = ALL, group: str = ""
    ) -> Iterator[Score]:
        """A row with its interval for every measure that exists."""
        for name, measure in measures.items():
            value = measure.point
            if measure.n and value == value:
                interval = measure_interval(measure, draws)
                yield self.row(
                    name, value, measure.n, measure.implementation, task=task, group=group, interval=interval
                )

    def mean(
        self,
        name: str,
        predictions: Sequence[Prediction],
        value: Callable[[Prediction], float],
        implementation: str,
    ) -> Iterator[Score]:
        """The mean over predictions with its interval; nothing for none."""
        if predictions:
            measure = mean_of([value(prediction) for prediction in predictions], implementation)
            yield from self.measured({name: measure}, draw_scenes([item.scene for item in predictions], self.seed))
