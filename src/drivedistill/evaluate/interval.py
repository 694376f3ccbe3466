"""How sure a mean is: bootstrap over scenes.

Samples of one scene resemble each other (a frame has dozens of questions), so resampling single samples would give
intervals that are far too narrow. Whole scenes are drawn instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def scene_interval(scenes: Sequence[str], values: Sequence[float], seed: int) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of `values`, from 1,000 draws of as many scenes with replacement.

    mean* = (sum of the values of the drawn scenes) / (number of their samples), so long scenes weigh more.

    Args:
        scenes: Scene of each value, same length.
        values: One number per sample.
        seed: The same seed gives the same interval.

    Returns:
        Low and high in the unit of `values`; (None, None) for fewer than two scenes.
    """
    names, index = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None, None
    sums = np.bincount(index, weights=np.asarray(values, dtype=float))
    counts = np.bincount(index)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for row in range(RESAMPLES):
        drawn = generator.integers(len(names), size=len(names))
        means[row] = sums[drawn].sum() / counts[drawn].sum()
    low = float(np.quantile(means, (1 - LEVEL) / 2))
    return low, float(np.quantile(means, (1 + LEVEL) / 2))
