"""Random draws with names: every choice of a scene comes from one generator, so that a seed means one scene."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Draws from one generator; much quicker for single values than the generator's own methods."""

    def __init__(self, *seeds: int) -> None:
        self._random = np.random.default_rng(seeds).random

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, each as likely as its weight says."""
        if weights is None:
            return options[int(self._random() * len(options))]
        sums = list(accumulate(weights))
        return options[min(bisect(sums, self._random() * sums[-1]), len(options) - 1)]

    def side(self) -> int:
        """1 (left) or -1 (right)."""
        return 1 if self._random() < 0.5 else -1

    def seed(self) -> int:
        """A seed for something else."""
        return int(self._random() * (1 << 30))
