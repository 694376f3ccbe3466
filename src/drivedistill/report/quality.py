"""How good rows are: the share of answers that are right, per regime, with intervals over scenes and seeds.

Sets of questions that are answered in free text (CODA-LM) have no right and wrong answers and are left out: they are known
by their references, of which more than half differ from each other. That is decided once, over all answers that lie there
(`Evidence.free_text`), so that no two numbers of a page are about other sets. What is right says `evaluate/correct.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from drivedistill.evaluate.correct import is_right
from drivedistill.evaluate.difference import Difference, difference, student_stretch
from drivedistill.evaluate.measure import ENOUGH_SCENES, draw_scenes, mean_of
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.evaluate.same_questions import Answers, match
from drivedistill.problems import InputError
from drivedistill.records import Prediction, Score
from drivedistill.report.evidence import ReportRow, Run
from drivedistill.tables import with_interval

REGIMES = ("regular", "corner")
PLACE = {"regular": "regular roads", "corner": "corner cases"}


class Figure(NamedTuple):
    """A number in the scale that is shown, with its 95 % interval."""

    value: float
    low: float | None
    high: float | None
    n: int = 0
    scenes: int = 0

    def text(self, form: str = ".1f") -> str:
        """`31.1 [28.0, 34.5]`."""
        return with_interval(self.value, self.low, self.high, form).replace("-", "−")


def percent(value: float, low: float | None, high: float | None) -> Figure:
    """A fraction and its interval in percent."""
    return Figure(100 * value, None if low is None else 100 * low, None if high is None else 100 * high)


def judged(answers: Iterable[Prediction], free: Collection[QuestionSet]) -> list[Prediction]:
    """The answers that are right or wrong: all but those to sets that are answered in free text."""
    return [item for item in answers if item.reference is not None and set_of(item) not in free]


def right(row: ReportRow, regime: str, free: Collection[QuestionSet]) -> Figure | None:
    """Share of right answers in percent, mean over seeds; None where the row has none of that regime."""
    runs = aligned([[item for item in judged(run, free) if item.regime == regime] for run in row.answered()])
    return share_right(runs) if runs and runs[0] else None


def share_right(runs: Sequence[Sequence[Prediction]]) -> Figure:
    """Share of right answers of runs that answered the same questions in the same order, in percent."""
    nothing = mean_of([0.0] * len(runs[0]), "")
    found = _difference([[float(is_right(item)) for item in run] for run in runs], runs[0], [nothing.statistics[:, 0]])
    return percent(found.mean, found.low, found.high)._replace(n=found.n, scenes=found.num_scenes)


def gap(a: ReportRow, b: ReportRow, regime: str, free: Collection[QuestionSet]) -> Difference | str:
    """Share of right answers of A minus that of B, in fractions; why there is none, in words.

    Runs of the same seed are pairs where the rows have at least two seeds in common, and then only these count;
    otherwise all runs count, and no two belong together.
    """
    runs = [[run for run in row.runs if judged(run.answers, free)] for row in (a, b)]
    if not all(runs):
        return "answers are missing"
    common = [seed for seed in _seeds(runs[0]) if seed in _seeds(runs[1])]
    paired = len(common) > 1
    if paired:
        runs = [sorted((run for run in side if run.facts.seed in common), key=_place) for side in runs]
    sides = [[Answers(row.name, judged(run.answers, free)) for run in of] for row, of in zip((a, b), runs, strict=True)]
    try:
        matched = match(*sides, common=True, paired=paired)
    except InputError as error:
        return "; ".join(str(problem) for problem in error.problems)
    whole = [found for found in matched if found.questions.regime == regime and not found.without]
    if not whole:
        return f"no questions of {PLACE[regime]} in common"
    answers = [
        [
            [item for found in whole for item in (found.a, found.b)[side].runs[place]]
            for place in range(len(sides[side]))
        ]
        for side in (0, 1)
    ]
    rights = [[[float(is_right(item)) for item in run] for run in side] for side in answers]
    return _difference(rights[0], answers[0][0], rights[1], paired=paired)


def _seeds(runs: Sequence[Run]) -> list[int]:
    """Those that are known, and that only one run has."""
    seeds = [run.facts.seed for run in runs]
    return [seed for seed in seeds if seed is not None and seeds.count(seed) == 1]


def _place(run: Run) -> int:
    return run.facts.seed or 0


def condition_gap(a: Sequence[Prediction], b: Sequence[Prediction]) -> Difference:
    """The same of one model's answers to the same questions under two conditions."""
    rights = [[float(is_right(item)) for item in side] for side in (a, b)]
    return _difference([rights[0]], a, [rights[1]], paired=True)


def _difference(
    a: Sequence[Sequence[float]],
    questions: Sequence[Prediction],
    b: Sequence[Sequence[float] | np.ndarray],
    *,
    paired: bool = False,
) -> Difference:
    draws = draw_scenes([item.scene for item in questions], 0)
    sides = [[mean_of([float(value) for value in run], "") for run in side] for side in (a, b)]
    return difference(sides[0], sides[1], draws, paired=paired)


def aligned(runs: Sequence[Sequence[Prediction]]) -> list[list[Prediction]]:
    """The questions that all runs answered, in one order."""
    if not runs:
        return []
    by_id = [{(set_of(item), item.id): item for item in run} for run in runs]
    common = sorted(set.intersection(*(set(run) for run in by_id)))
    return [[run[key] for key in common] for run in by_id]


def in_words(found: Difference | str) -> str:
    """`-5.2 [-8.0, -2.4] points`, and what it shows."""
    if isinstance(found, str):
        return f"not compared ({found})"
    text = f"{percent(found.mean, found.low, found.high).text('+.1f')} points"
    if found.num_scenes < ENOUGH_SCENES:
        return f"{text}, too few scenes for a verdict"
    if found.low is None or found.high is None:
        return f"{text}, without an interval"
    return f"{text}, no difference shown" if found.low <= 0 <= found.high else text


def pooled(scores: Sequence[Score]) -> Figure:
    """One score of several seeds as a table shows it: the mean, and an interval that knows of scenes and of seeds.

    The variance is that of the scenes (mean over seeds of what their own intervals say) plus that of the seeds over their
    number, and the interval is stretched by Student's quantile; see `evaluate/difference.py`, which has the draws. Without
    intervals of their own, or with one seed, the scores keep what they have. No interval leaves the metric's scale.
    """
    metric = METRICS[scores[0].name]
    factor = metric.factor
    values = [score.value * factor for score in scores]
    mean, n = statistics.fmean(values), min(score.n for score in scores)
    widths = [factor * (s.high - s.low) / 2 for s in scores if s.low is not None and s.high is not None]
    if len(widths) < len(scores):
        return Figure(mean, None, None, n)
    if len(scores) == 1:
        low, high = scores[0].low, scores[0].high
        assert low is not None and high is not None
        return Figure(mean, factor * low, factor * high, n)
    by_scenes = statistics.fmean((width / 1.96) ** 2 for width in widths)
    by_seeds = statistics.variance(values) / len(values)
    total = by_scenes + by_seeds
    inverse_df = by_seeds**2 / (len(values) - 1) / total**2 if total else 0.0
    half = 1.96 * math.sqrt(total) * student_stretch(inverse_df)
    return Figure(mean, max(0.0, mean - half), min(metric.highest, mean + half), n)  # no score is below zero
