"""Numbers of a set of answers that are made of sums over its samples, and how sure they are.

    value = measure.value(measure.statistics.sum(axis=0))

BLEU is made of n-gram counts, an F1 of hits and misses, a mean of values and their number. Whoever keeps what every
sample adds to the sums can draw the scenes anew and compute the metric again; a thousand draws are one matrix product, and
no metric of a set is ever replaced by a mean of sentence scores.

Whole scenes are drawn, with replacement: a frame has dozens of questions that resemble each other, so drawing single
samples would give intervals that are far too narrow.

Legend: n samples, k sums, S scenes, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95
ENOUGH_SCENES = 30
"""With fewer there are intervals, but no verdict: the percentiles of so small a sample are not to be trusted."""


@dataclass(frozen=True)
class Measure:
    """One number of a set of n answers."""

    statistics: Floats
    """`float64[n, k]`: what every sample adds; zeros for a sample that does not count."""
    value: Callable[[Floats], Floats]
    """Sums `[..., k]` to the number `[...]`; nan where it does not exist."""
    implementation: str
    """How it was made, for the row that shows it."""
    n: int
    """Samples that count."""

    @property
    def point(self) -> float:
        """The number itself."""
        return float(self.value(self.statistics.sum(axis=0)))

    def of(self, chosen: Sequence[int] | NDArray[np.int64]) -> Measure:
        """The measure of some of the samples; for measures in which all samples count."""
        return replace(self, statistics=self.statistics[chosen], n=len(chosen))


class Finding(NamedTuple):
    """One number of a set of answers that no sums give, such as a percentile: it has no interval."""

    value: float
    n: int
    """Samples that count."""
    implementation: str
    """How it was made, for the row that shows it."""


@dataclass(frozen=True)
class Draws:
    """Scenes drawn with replacement, the same for everything that is compared."""

    scene: NDArray[np.int64]
    """`int64[n]`: which scene a sample belongs to."""
    counts: Floats
    """`float64[R, S]`: how often a draw contains a scene."""

    @property
    def num_scenes(self) -> int:
        """S."""
        return self.counts.shape[1]


def draw_scenes(scenes: Sequence[str], seed: int) -> Draws | None:
    """1,000 draws of as many scenes as there are; None for fewer than two.

    Args:
        scenes: Scene of each sample, n.
        seed: The same seed gives the same draws.
    """
    names, scene = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None
    generator = np.random.default_rng(seed)
    counts = np.empty((RESAMPLES, len(names)))
    for row in range(RESAMPLES):
        counts[row] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    return Draws(scene.astype(np.int64), counts)


def drawn_values(measure: Measure, draws: Draws) -> Floats:
    """The measure of every draw, `float64[R]`."""
    by_scene = np.zeros((draws.num_scenes, measure.statistics.shape[1]))
    np.add.at(by_scene, draws.scene, measure.statistics)
    return measure.value(draws.counts @ by_scene)


def interval(values: Floats) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of drawn values; none where the number does not exist in every draw."""
    if not np.isfinite(values).all():
        return None, None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def measure_interval(measure: Measure, draws: Draws | None) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of a measure; none for fewer than two scenes."""
    return (None, None) if draws is None else interval(drawn_values(measure, draws))


def mean_of(values: Sequence[float | None], implementation: str) -> Measure:
    """The mean of one number per sample; None does not count."""
    statistics = np.array([(0.0, 0.0) if value is None else (value, 1.0) for value in values]).reshape(-1, 2)
    return Measure(statistics, ratio, implementation, int(statistics[:, 1].sum()))


def combined(parts: Sequence[Measure], value: Callable[..., Floats], implementation: str) -> Measure:
    """A number made of others: a mean of metrics, a difference, a quotient.

    Args:
        parts: Over the same n samples, in the same order.
        value: The numbers of the parts, one argument `[...]` for each, to the new one `[...]`.
        implementation: See `Measure`.
    """
    ends = np.cumsum([part.statistics.shape[1] for part in parts])[:-1]

    def of(sums: Floats) -> Floats:
        blocks = np.split(sums, ends, axis=-1)
        return value(*(part.value(block) for part, block in zip(parts, blocks, strict=True)))

    return Measure(np.hstack([part.statistics for part in parts]), of, implementation, min(part.n for part in parts))


def ratio(sums: Floats) -> Floats:
    """First sum over second, `[..., 2]` to `[...]`; nan where the second is 0."""
    found = np.full(sums.shape[:-1], np.nan)
    return np.divide(sums[..., 0], sums[..., 1], out=found, where=sums[..., 1] != 0)
