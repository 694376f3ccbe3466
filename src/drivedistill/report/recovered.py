"""How much of what the plain student loses against the teacher distillation wins back: (A - student) / (teacher - student).

All three answer the same questions, and every draw of scenes counts for all of them, so the quotient has its own interval.
Several seeds of a row are drawn as in `evaluate/difference.py`, each row's for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from drivedistill.evaluate.correct import is_right
from drivedistill.evaluate.difference import drawn_sum
from drivedistill.evaluate.measure import (
    ENOUGH_SCENES,
    LEVEL,
    Draws,
    Floats,
    draw_scenes,
    drawn_values,
    interval,
    mean_of,
)
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.records import Prediction
from drivedistill.report.evidence import ReportRow
from drivedistill.report.quality import Figure, aligned, judged, percent

NOTHING_LOST = "nothing is lost"
TOO_FEW = "too few scenes"


def recovered(
    row: ReportRow, student: ReportRow, teacher: ReportRow, regime: str, free: Collection[QuestionSet]
) -> Figure | str:
    """The share, in percent, with its 95 % interval, below zero where more is lost; why there is none, in words.

    Args:
        row: Who distils.
        student: The plain one.
        teacher: Its teacher.
        regime: Of the questions.
        free: Sets that are answered in free text.
    """
    rows = (row, student, teacher)
    sizes = [len(each.answered()) for each in rows]
    answers = [
        [item for item in judged(run, free) if item.regime == regime] for each in rows for run in each.answered()
    ]
    if not all(sizes) or not all(answers):
        return "answers are missing"
    runs = aligned(answers)
    draws = draw_scenes([item.scene for item in runs[0]], 0) if runs[0] else None
    if draws is None or draws.num_scenes < ENOUGH_SCENES:
        return TOO_FEW
    ends = np.cumsum([0, *sizes])
    sides = [_side(runs[ends[i] : ends[i + 1]], draws, i) for i in range(3)]
    (mine, drawn_mine), (plain, drawn_plain), (best, drawn_best) = sides
    low, _ = interval(drawn_best - drawn_plain)
    if low is None or low <= 0:
        return NOTHING_LOST
    return percent((mine - plain) / (best - plain), *_quotient(drawn_mine - drawn_plain, drawn_best - drawn_plain))


def _side(runs: Sequence[Sequence[Prediction]], draws: Draws, number: int) -> tuple[float, Floats]:
    """A row's share of right answers, mean over its runs, and that in every draw, `float64[R]`."""
    measures = [mean_of([float(is_right(item)) for item in run], "") for run in runs]
    points = np.array([measure.point for measure in measures])
    values = np.stack([drawn_values(measure, draws) for measure in measures])
    return float(points.mean()), drawn_sum([(points, values, 1.0)], np.random.default_rng([0, 1, number]))


def _quotient(won: Floats, lost: Floats) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of won / lost. A draw in which nothing is lost lies beyond both ends, so it only widens it."""
    tail = (1 - LEVEL) / 2
    low, high = (
        np.quantile(np.divide(won, lost, out=np.full(len(lost), beyond), where=lost > 0), level)
        for beyond, level in ((-np.inf, tail), (np.inf, 1 - tail))
    )
    return (float(low), float(high)) if np.isfinite([low, high]).all() else (None, None)
