"""How sure a mean is: bootstrap over scenes.

Samples of one scene resemble each other (a frame has dozens of questions), so resampling single samples would give
intervals that are far too narrow. Whole scenes are drawn instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def paired_interval(
    scenes: Sequence[str], differences: Sequence[Sequence[float]], seed: int
) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of differences over runs and samples: whole runs and whole scenes are drawn.

    Runs (training seeds) answer the same questions, so runs and scenes are crossed: each of 1,000 draws takes as many
    runs and as many scenes with replacement, independently, and averages over all pairs (the pigeonhole bootstrap;
    Owen, Annals of Applied Statistics 1, 2007). With one run only scenes are drawn, and the interval says nothing about
    other seeds.

    Args:
        scenes: Scene of each sample, n.
        differences: One row per run, each of n numbers.
        seed: The same seed gives the same interval.

    Returns:
        Low and high in the unit of `differences`; (None, None) for fewer than two scenes.
    """
    names, index = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None, None
    sums = np.stack([np.bincount(index, weights=np.asarray(row, dtype=float)) for row in differences])
    counts = np.bincount(index)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for row in range(RESAMPLES):
        runs = generator.integers(len(sums), size=len(sums))
        drawn = generator.integers(len(names), size=len(names))
        means[row] = sums[np.ix_(runs, drawn)].sum() / (len(sums) * counts[drawn].sum())
    low = float(np.quantile(means, (1 - LEVEL) / 2))
    return low, float(np.quantile(means, (1 + LEVEL) / 2))
