"""Is A better than B? Differences of metrics with intervals over scenes and, where there are several runs, over seeds.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drivedistill.evaluate.measure import ENOUGH_SCENES, Draws, Floats, Measure, draw_scenes, drawn_values, interval
from drivedistill.evaluate.metric import METRICS

Verdict = Literal["better", "worse", "no difference shown", "too few scenes"]

_INVERSE_DF = np.array([0, 1 / 30, 1 / 10, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1])
_STUDENT = np.array([1.960, 2.042, 2.228, 2.447, 2.776, 3.182, 4.303, 12.706])
"""Student's 97.5 % quantile at one over the degrees of freedom; nearly straight in between."""


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
    """Scenes with a question that counts on both sides."""
    num_runs: tuple[int, int]
    """Of A, of B."""
    verdict: Verdict | None
    """Of A. None where neither direction is better, or where there is no interval."""


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
        mean, sd = float((points[0] - points[1]).mean()), standard_deviation(points[0] - points[1])
    elif len(a) > 1 and len(b) > 1:
        sd = float(np.hypot(*(np.std(side, ddof=1) for side in points)))
    low, high = (None, None) if draws is None else interval(_drawn(a, b, draws, points, paired=paired, seed=seed))
    num_scenes = _num_scenes(a, b, draws)
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


def differences(
    a: Sequence[Mapping[str, Measure]],
    b: Sequence[Mapping[str, Measure]],
    scenes: Sequence[str],
    *,
    names: Sequence[str] = tuple(METRICS),
    paired: bool = True,
    seed: int = 0,
) -> dict[str, Difference]:
    """A - B for every metric that all runs have, on the same draws of scenes; see `difference`.

    Args:
        a: Metric -> measure, of each run of A.
        b: The same of B.
        scenes: Scene of each of the n questions.
        names: Metrics that are wanted, names of `METRICS`.
        paired: Run i of A belongs to run i of B.
        seed: Of the draws.
    """
    draws = draw_scenes(scenes, seed)
    found = {}
    for name in names:
        if all(name in run and np.isfinite(run[name].point) for run in (*a, *b)):
            better = METRICS[name].higher_is_better if METRICS[name].ranks else None
            sides = [run[name] for run in a], [run[name] for run in b]
            found[name] = difference(*sides, draws, higher_is_better=better, paired=paired, seed=seed)
    return found


def _drawn(
    a: Sequence[Measure], b: Sequence[Measure], draws: Draws, points: Sequence[Floats], *, paired: bool, seed: int
) -> Floats:
    """The difference in every draw, `float64[R]`."""
    values = [np.stack([drawn_values(measure, draws) for measure in side]) for side in (a, b)]
    parts = [(points[0], values[0], 1.0), (points[1], values[1], -1.0)]
    if paired:
        parts = [(points[0] - points[1], values[0] - values[1], 1.0)]
    parts.sort(key=lambda part: tuple(part[0]))  # so that B - A draws the same runs as A - B
    return drawn_sum(parts, np.random.default_rng([seed, 1]))  # not the stream that drew the scenes


def drawn_sum(parts: Sequence[tuple[Floats, Floats, float]], generator: np.random.Generator) -> Floats:
    """A signed sum of means over runs in every draw of scenes and runs, `float64[R]`; see the top of the file.

    Args:
        parts: A metric of every run, `float64[m]`; the same in every draw of scenes, `float64[m, R]`; its sign.
        generator: Draws the runs.
    """
    num_draws = parts[0][1].shape[1]
    centre, by_scenes, by_runs = 0.0, np.zeros(num_draws), np.zeros(num_draws)
    inverse_df = run_variance = 0.0
    for point, value, sign in parts:
        m = len(point)
        centre += sign * point.mean()
        by_scenes += sign * (value.mean(axis=0) - point.mean())
        if m > 1:
            by_runs += sign * run_noise(value, generator)
            variance = point.var(ddof=1) / m
            run_variance += variance
            inverse_df += variance**2 / (m - 1)
    total = run_variance + by_scenes.var()
    stretch = student_stretch(inverse_df / total**2) if total > 0 else 1.0
    return np.asarray(centre + stretch * (by_scenes + by_runs))


def student_stretch(inverse_df: float) -> float:
    """How much wider an interval must be when the variance is known from few values: Student's 97.5 % quantile over the
    normal one, at one over the degrees of freedom (0: all that there are)."""
    return float(np.interp(inverse_df, _INVERSE_DF, _STUDENT) / _STUDENT[0])


def run_noise(values: Floats, generator: np.random.Generator) -> Floats:
    """How the mean over m drawn runs departs from that over all runs, `float64[R]`, its variance made unbiased.

    Args:
        values: `float64[m, R]`: a metric of every run in every draw of scenes.
        generator: Draws the runs.
    """
    m, num_draws = values.shape
    if m == 1:
        return np.zeros(num_draws)
    shares = _shares(m, num_draws, generator)
    return np.asarray(np.sqrt(m / (m - 1)) * ((shares - 1 / m) * values).sum(axis=0))


def _shares(m: int, num_draws: int, generator: np.random.Generator) -> Floats:
    """What share of a draw every run has when m runs are drawn with replacement, `float64[m, R]`."""
    drawn: NDArray[np.int64] = generator.integers(m, size=(m, num_draws))
    return np.stack([(drawn == run).mean(axis=0) for run in range(m)])


def _num_scenes(a: Sequence[Measure], b: Sequence[Measure], draws: Draws | None) -> int:
    """Scenes with a question that counts on both sides, with some run of each."""
    sides = [np.any([measure.statistics.any(axis=1) for measure in side], axis=0) for side in (a, b)]
    counts = sides[0] & sides[1]
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


def standard_deviation(values: Sequence[float] | Floats) -> float | None:
    """Over runs; None for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
