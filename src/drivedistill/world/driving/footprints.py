"""Do rectangles on the ground overlap? Exact, for oriented rectangles, by separating axes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.track import Floats


class Box(NamedTuple):
    """A rectangle on the ground: its middle, direction, half length and half width."""

    x: float
    y: float
    yaw: float
    length: float
    width: float


@kernel
def _separates(one: Box, other: Box) -> bool:
    """Does a side of the first rectangle separate it from the second?"""
    dx, dy, yaw = other.x - one.x, other.y - one.y, other.yaw - one.yaw
    cos, sin = np.cos(one.yaw), np.sin(one.yaw)
    along, across = abs(np.cos(yaw)), abs(np.sin(yaw))
    if abs(cos * dx + sin * dy) > one.length + along * other.length + across * other.width:
        return True
    return abs(cos * dy - sin * dx) > one.width + across * other.length + along * other.width


@kernel
def overlap(one: Box, other: Box) -> bool:
    """Do two rectangles overlap?"""
    if (one.x - other.x) ** 2 + (one.y - other.y) ** 2 > (one.length + one.width + other.length + other.width) ** 2:
        return False
    return not _separates(one, other) and not _separates(other, one)


def overlaps(poses: Floats, halves: Floats, first: int, tolerance: float) -> NDArray[np.bool_]:
    """Which rectangles ever overlap.

    Args:
        poses: float[n, T, 3], x, y, yaw of the middles.
        halves: float[n, 2], half lengths and half widths.
        first: Pairs (a, b) are looked at where a < `first` and a < b.
        tolerance: Metres by which every half length and half width is reduced.

    Returns:
        bool[first, n]
    """
    found: NDArray[np.bool_] = np.zeros((first, len(poses)), np.bool_)
    _find(poses, halves - tolerance, found)
    return found


@kernel
def _find(poses: Floats, sizes: Floats, found: NDArray[np.bool_]) -> None:
    """Set `found` where rectangles overlap."""
    for a in range(found.shape[0]):
        for b in range(a + 1, found.shape[1]):
            for step in range(poses.shape[1]):
                one = Box(poses[a, step, 0], poses[a, step, 1], poses[a, step, 2], sizes[a, 0], sizes[a, 1])
                other = Box(poses[b, step, 0], poses[b, step, 1], poses[b, step, 2], sizes[b, 0], sizes[b, 1])
                if overlap(one, other):
                    found[a, b] = True
                    break
