"""A reference line through the world, and positions along it: s metres ahead, d metres to the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPACING_M = 0.5

Floats: TypeAlias = NDArray[np.float64]


class Pose(NamedTuple):
    """World position in metres and heading in radians; numbers or arrays of one shape."""

    x: Floats
    y: Floats
    yaw: Floats


@dataclass(frozen=True)
class Track:
    """A line of equally spaced points; before its first and after its last point it goes on straight."""

    start: float
    """s of the first point."""
    points: Floats
    """float[n, 2], metres"""
    headings: Floats
    """float[n], radians, without jumps"""

    @property
    def end(self) -> float:
        """The s of the last point."""
        return self.start + SPACING_M * (len(self.points) - 1)

    def world(self, s: ArrayLike, d: ArrayLike, yaw: ArrayLike = 0.0) -> Pose:
        """World pose of the position (s, d) that looks `yaw` radians to the left of the track's direction."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        inside = np.clip(s, self.start, self.end)
        place = (inside - self.start) / SPACING_M
        index = np.minimum(place.astype(np.int64), len(self.points) - 2)
        part = place - index
        heading = self.headings[index] * (1 - part) + self.headings[index + 1] * part
        along = self.points[index] * (1 - part)[..., None] + self.points[index + 1] * part[..., None]
        cos, sin, beyond = np.cos(heading), np.sin(heading), s - inside
        return Pose(along[..., 0] + cos * beyond - sin * d, along[..., 1] + sin * beyond + cos * d, heading + yaw)

    def project(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """The (s, d) of world positions: those of the nearest point of the line."""
        where = np.stack(np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float)), axis=-1)
        offsets = where[..., None, :] - self.points
        index = np.argmin((offsets**2).sum(-1), axis=-1)
        heading = self.headings[index]
        dx, dy = np.moveaxis(where - self.points[index], -1, 0)
        along = np.cos(heading) * dx + np.sin(heading) * dy
        return self.start + index * SPACING_M + along, np.cos(heading) * dy - np.sin(heading) * dx

    def curvature(self, s: ArrayLike) -> Floats:
        """Curvature in 1/m at s, positive to the left; 0 beyond the ends."""
        bend = np.gradient(self.headings, SPACING_M)
        return np.interp(s, self.start + SPACING_M * np.arange(len(bend)), bend, left=0.0, right=0.0)


def lay(
    pieces: Sequence[tuple[float, float]],
    *,
    start: float = 0.0,
    origin: tuple[float, float] = (0.0, 0.0),
    heading: float = 0.0,
) -> Track:
    """A track of straight and bent pieces.

    Args:
        pieces: (length in metres, curvature in 1/m, positive to the left) one after the other.
        start: s of the first point.
        origin: World position of s = 0.
        heading: World direction of the track at s = 0, in radians.
    """
    lengths, bends = np.array(pieces, float).T
    count = max(2, round(lengths.sum() / SPACING_M) + 1)
    middles = (np.arange(count - 1) + 0.5) * SPACING_M
    piece = np.minimum(np.searchsorted(np.cumsum(lengths), middles, side="right"), len(bends) - 1)
    turns = bends[piece] * SPACING_M
    headings = np.concatenate([[0.0], np.cumsum(turns)])
    chords = headings[:-1] + turns / 2
    steps = SPACING_M * np.stack([np.cos(chords), np.sin(chords)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    line = Track(start, points, headings)
    x, y, turned = (float(value) for value in line.world(0.0, 0.0))
    cos, sin = np.cos(heading - turned), np.sin(heading - turned)
    rotated = (points - (x, y)) @ np.array([[cos, sin], [-sin, cos]]) + origin
    return Track(start, rotated, headings + heading - turned)
