"""Do rectangles on the ground overlap? Exact, for oriented rectangles, by separating axes."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivedistill.world.track import Floats


@njit(cache=True)
def _apart(dx: float, dy: float, yaw: float, other: float, half: np.ndarray, other_half: np.ndarray) -> bool:
    """Does an axis of the first rectangle separate it from the second, whose middle lies at (dx, dy) from its own?"""
    cos, sin = np.cos(yaw), np.sin(yaw)
    along, across = abs(np.cos(other - yaw)), abs(np.sin(other - yaw))
    if abs(cos * dx + sin * dy) > half[0] + along * other_half[0] + across * other_half[1]:
        return True
    return abs(cos * dy - sin * dx) > half[1] + across * other_half[0] + along * other_half[1]


@njit(cache=True)
def overlaps(poses: Floats, halves: Floats, first: int, last: int, tolerance: float) -> NDArray[np.int64]:
    """The step from which each pair of rectangles first overlaps.

    Args:
        poses: float[n, T, 3], x, y, yaw of the middles.
        halves: float[n, 2], half lengths and half widths.
        first: Pairs (a, b) are looked at where a < `first` and a < b.
        last: The step before which they are looked at.
        tolerance: Metres by which every half length and half width is reduced.

    Returns:
        int[first, n], -1 where a pair never overlaps.
    """
    count = len(poses)
    found = np.full((first, count), -1)
    sizes = halves - tolerance
    for a in range(first):
        for b in range(a + 1, count):
            reach = (sizes[a, 0] + sizes[a, 1] + sizes[b, 0] + sizes[b, 1]) ** 2
            for step in range(last):
                dx, dy = poses[b, step, 0] - poses[a, step, 0], poses[b, step, 1] - poses[a, step, 1]
                if dx * dx + dy * dy > reach:
                    continue
                yaw, other = poses[a, step, 2], poses[b, step, 2]
                if not _apart(dx, dy, yaw, other, sizes[a], sizes[b]) and not _apart(
                    -dx, -dy, other, yaw, sizes[b], sizes[a]
                ):
                    found[a, b] = step
                    break
    return found
