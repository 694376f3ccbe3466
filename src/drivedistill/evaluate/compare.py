"""Is model A better than model B? Differences of metrics with intervals over scenes and, where there are several, over seeds.

    both sides answer the same questions -> a `Measure` per run and metric -> A - B, its interval, a verdict

Every metric is computed again on every draw of scenes, from sums (BLEU from n-gram counts, and so on): the difference of
two corpus metrics is never a mean of differences of sentence scores, which may even have the other sign.

Runs (training seeds) answer the same questions, so runs and scenes are crossed: each of 1,000 draws takes as many runs and
as many scenes as there are, with replacement, independently (the pigeonhole bootstrap; Owen, Annals of Applied Statistics
1, 2007). Two or three runs tell little of how runs differ: their plain bootstrap covers the truth in 44 and 73 of 100 cases
where runs differ more than scenes, instead of 95. So the part of the runs is made unbiased (m / (m - 1)), and the draws are
stretched by Student's quantile for as many degrees of freedom as the variance really has (Satterthwaite, Biometrics
Bulletin 2, 1946); where scenes differ more than runs, and with one run, this changes next to nothing.

Legend: m runs of a side, n questions, S scenes, R draws.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drivedistill.evaluate.drivelm import reference_of
from drivedistill.evaluate.families import answer_measures
from drivedistill.evaluate.measure import ENOUGH_SCENES, Draws, Floats, Measure, draw_scenes, drawn_values, interval
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.same_questions import Answers, Matched, QuestionSet, Side, match
from drivedistill.evaluate.text import Key, Tokenizer, caption_measures
from drivedistill.records import Prediction

Verdict = Literal["better", "worse", "no difference shown", "too few scenes"]

_INVERSE_DF = np.array([0, 1 / 30, 1 / 10, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1])
_STUDENT = np.array([1.960, 2.042, 2.228, 2.447, 2.776, 3.182, 4.303, 12.706])
"""Student's 97.5 % quantile at one over the degrees of freedom; nearly straight in between."""


@dataclass(frozen=True)
class Spread:
    """A metric of the runs of one side."""

    mean: float
    sd: float | None
    """Over runs; None for one."""


@dataclass(frozen=True)
class Difference:
    """A metric of A minus that of B, in the unit of the metric."""

    mean: float
    sd: float | None
    """Over runs: of the differences of pairs, or of one run of A and one of B where they are no pairs; None for one."""
    low: float | None
    high: float | None
    """95 % interval; None for fewer than two scenes, or where a draw has no value."""
    n: int
    """Questions that count."""
    num_scenes: int
    """Scenes with a question that counts."""
    num_runs: tuple[int, int]
    """Of A, of B."""
    verdict: Verdict | None
    """Of A. None where neither direction is better, or where there is no interval."""


@dataclass(frozen=True)
class Line:
    """One metric of a set of questions."""

    name: str
    a: Spread
    b: Spread
    difference: Difference
    implementation: str


@dataclass(frozen=True)
class Comparison:
    """All metrics of a set of questions."""

    questions: QuestionSet
    a: Side
    b: Side
    n: int
    paired: bool
    """Whether run i of A and run i of B belong together."""
    left_out: tuple[int, int]
    """Questions that a run of A, and that a run of B, answered and that are not compared, since another run did not."""
    unscored: int
    """Questions without a reference, not compared."""
    lines: tuple[Line, ...]
    not_compared: tuple[str, ...]
    """Metrics that do not exist for some run."""


def compare(
    a: Sequence[Answers],
    b: Sequence[Answers],
    *,
    common: bool = False,
    paired: bool = False,
    meteor: bool = True,
    tokenizer: Tokenizer = "ptb",
    seed: int = 0,
) -> list[Comparison]:
    """A - B for every metric, on every set of questions that both sides answered; a set without references has no lines.

    Args:
        a: The answers of each run of A.
        b: The answers of each run of B.
        common: Compare the questions that all answered, where some are missing.
        paired: The runs belong together in this order. Runs of the same models always do.
        meteor: False saves some seconds, and leaves out `meteor` and `avg`.
        tokenizer: See `text.caption_measures`.
        seed: Of the draws.

    Raises:
        InputError: The two sides did not answer the same questions, or cannot be paired; every finding is listed.
        RunError: Java failed.
    """
    sets = match(a, b, common=common, paired=paired)
    answers = {
        (number, side, run): items
        for number, found in enumerate(sets)
        for side, runs in (("a", found.a), ("b", found.b))
        for run, items in enumerate(runs.runs)
        if items
    }
    measures = measures_of(answers, meteor=meteor, tokenizer=tokenizer)
    return [
        _comparison(
            found,
            [measures.get((number, "a", run), {}) for run in range(len(found.a.runs))],
            [measures.get((number, "b", run), {}) for run in range(len(found.b.runs))],
            seed,
        )
        for number, found in enumerate(sets)
    ]


def measures_of(
    answers: Mapping[Key, Sequence[Prediction]], *, meteor: bool = True, tokenizer: Tokenizer = "ptb"
) -> dict[Key, dict[str, Measure]]:
    """Every measure of several lists of answers, all of them with references; Java starts once.

    Raises:
        ValueError: A list is empty, or an answer has no reference.
        InputError: The scorers or Java are missing.
        RunError: A Java program failed.
    """
    pairs = {key: [(reference_of(item), item.prediction) for item in items] for key, items in answers.items()}
    captions = caption_measures(pairs, meteor=meteor, tokenizer=tokenizer) if pairs else {}
    return {key: {**captions[key], **answer_measures(items)} for key, items in answers.items()}


def difference(
    a: Sequence[Measure],
    b: Sequence[Measure],
    draws: Draws | None,
    *,
    higher_is_better: bool | None = True,
    paired: bool = True,
    seed: int = 0,
) -> Difference:
    """A metric of A minus that of B.

    Args:
        a: The metric of each run of A, all over the same n questions in the same order.
        b: The same of B.
        draws: Of the scenes of these questions; None where there are fewer than two.
        higher_is_better: None where neither direction is.
        paired: Run i of A belongs to run i of B (the same training seed, or the same model in two conditions). Otherwise
            the runs of the two sides are drawn independently.
        seed: Of the draws of runs.

    Raises:
        ValueError: `paired`, and the sides have not the same number of runs; or a side has none.
    """
    if not a or not b or (paired and len(a) != len(b)):
        raise ValueError(f"`a` and `b` must be runs, as many of each if paired, got {len(a)} and {len(b)}.")
    points = [np.array([measure.point for measure in side]) for side in (a, b)]
    mean, sd = float(points[0].mean() - points[1].mean()), None
    if paired:
        mean, sd = float((points[0] - points[1]).mean()), _sd(points[0] - points[1])
    elif len(a) > 1 and len(b) > 1:
        sd = float(np.hypot(*(np.std(side, ddof=1) for side in points)))
    low, high = (None, None) if draws is None else interval(_drawn(a, b, draws, points, paired=paired, seed=seed))
    num_scenes = _num_scenes([*a, *b], draws)
    return Difference(
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        n=min(measure.n for measure in (*a, *b)),
        num_scenes=num_scenes,
        num_runs=(len(a), len(b)),
        verdict=_verdict(low, high, num_scenes, higher_is_better),
    )


def _drawn(
    a: Sequence[Measure], b: Sequence[Measure], draws: Draws, points: Sequence[Floats], *, paired: bool, seed: int
) -> Floats:
    """The difference in every draw, `float64[R]`."""
    values = [np.stack([drawn_values(measure, draws) for measure in side]) for side in (a, b)]
    parts = [(points[0], values[0], 1.0), (points[1], values[1], -1.0)]
    if paired:
        parts = [(points[0] - points[1], values[0] - values[1], 1.0)]
    parts.sort(key=lambda part: tuple(part[0]))  # so that B - A draws the same runs as A - B
    generator = np.random.default_rng([seed, 1])  # not the stream that drew the scenes
    num_draws = len(draws.counts)
    centre, by_scenes, by_runs = 0.0, np.zeros(num_draws), np.zeros(num_draws)
    inverse_df = run_variance = 0.0
    for point, value, sign in parts:
        m = len(point)
        centre += sign * point.mean()
        by_scenes += sign * (value.mean(axis=0) - point.mean())
        if m > 1:
            by_runs += sign * np.sqrt(m / (m - 1)) * ((_shares(m, num_draws, generator) - 1 / m) * value).sum(axis=0)
            variance = point.var(ddof=1) / m
            run_variance += variance
            inverse_df += variance**2 / (m - 1)
    total = run_variance + by_scenes.var()
    stretch = np.interp(inverse_df / total**2, _INVERSE_DF, _STUDENT) / _STUDENT[0] if total > 0 else 1.0
    return np.asarray(centre + stretch * (by_scenes + by_runs))


def _shares(m: int, num_draws: int, generator: np.random.Generator) -> Floats:
    """What share of a draw every run has when m runs are drawn with replacement, `float64[m, R]`."""
    drawn: NDArray[np.int64] = generator.integers(m, size=(m, num_draws))
    return np.stack([(drawn == run).mean(axis=0) for run in range(m)])


def _num_scenes(measures: Sequence[Measure], draws: Draws | None) -> int:
    """Scenes with a question that counts."""
    counts = np.any([measure.statistics.any(axis=1) for measure in measures], axis=0)
    return int(counts.any()) if draws is None else len(np.unique(draws.scene[counts]))


def _verdict(low: float | None, high: float | None, num_scenes: int, higher_is_better: bool | None) -> Verdict | None:
    if higher_is_better is None:
        return None
    if num_scenes < ENOUGH_SCENES:
        return "too few scenes"
    if low is None or high is None:
        return None
    if low <= 0 <= high:
        return "no difference shown"
    return "better" if (low > 0) == higher_is_better else "worse"


def _comparison(
    found: Matched, a: Sequence[Mapping[str, Measure]], b: Sequence[Mapping[str, Measure]], seed: int
) -> Comparison:
    draws = draw_scenes([item.scene for item in found.a.runs[0]], seed)
    names = [name for name in METRICS if any(name in run for run in (*a, *b))]
    shared = [name for name in names if all(name in run and np.isfinite(run[name].point) for run in (*a, *b))]
    lines = []
    for name in shared:
        of_a, of_b = [run[name] for run in a], [run[name] for run in b]
        better = METRICS[name].higher_is_better
        found_difference = difference(of_a, of_b, draws, higher_is_better=better, paired=found.paired, seed=seed)
        lines.append(Line(name, _spread(of_a), _spread(of_b), found_difference, of_a[0].implementation))
    return Comparison(
        questions=found.questions,
        a=found.a.side,
        b=found.b.side,
        n=len(found.a.runs[0]),
        paired=found.paired,
        left_out=found.left_out,
        unscored=found.unscored,
        lines=tuple(lines),
        not_compared=tuple(name for name in names if name not in shared),
    )


def _spread(measures: Sequence[Measure]) -> Spread:
    points = [measure.point for measure in measures]
    return Spread(statistics.fmean(points), _sd(points))


def _sd(values: Sequence[float] | Floats) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
