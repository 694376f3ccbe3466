"""Where the roads of a scene lie, and which places beside them are free to build on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.scene import LANE_M, Road, Scene
from drivedistill.world.track import SPACING_M, Floats, Track

BEHIND_M = 90.0
"""How far the surroundings reach behind the ego's first place."""
SIGHT_M = 110.0
"""How far they reach beyond the ego's last key frame, six seconds ahead."""
CROSS_M = 100.0
"""How far what stands beside the cross road reaches."""
BEYOND_M = 120.0
"""How far the bare road goes on behind that."""
SAMPLE_M = 4.0
"""Spacing of what follows a gentle bend."""
TURN_RAD, FINEST_M = 0.03, 1.0
"""What is painted along a sharper bend turns by at most this from piece to piece, unless they would be shorter than this."""
CORNER_M = 3.0
"""Radius of the kerb at a junction."""
TAPER_M = 30.0
"""Length over which the acceleration lane ends, and over which its ramp comes in."""
FAR_CARRIAGEWAY_M = 14.0
"""Width of the other direction of a highway, behind the barrier."""


@dataclass(frozen=True)
class Way:
    """A road as it is painted: its track, from where to where, and the d of its edges."""

    track: Track
    begin: float
    end: float
    right: float
    """Of the asphalt, margin included; likewise `left`."""
    left: float
    pavement: float
    """Its width; 0 where there is none."""

    @property
    def painted(self) -> tuple[float, float]:
        """From which s to which s it is painted; an end in the middle of a junction stays there."""
        return self.begin - BEYOND_M * (self.begin < 0), self.end + BEYOND_M * (self.end > 0)

    @cached_property
    def cuts(self) -> Floats:
        """The s at which a strip is cut so that it follows the bends."""
        return self._along_bends(FINEST_M)

    def _along_bends(self, finest: float) -> Floats:
        """Ends of bends and the s within them that are at least `finest` metres apart."""
        bent = np.abs(np.diff(self.track.headings)) > 1e-9
        beside: NDArray[np.int64] = np.flatnonzero(bent[1:] | bent[:-1]) + 1
        edge = bent[beside] != bent[beside - 1]
        turn = np.maximum(np.abs(np.diff(self.track.headings)[beside - 1]), 1e-9)
        spacing = np.clip(SPACING_M * TURN_RAD / turn, finest, SAMPLE_M)
        kept = beside[edge | (beside % np.round(spacing / SPACING_M).astype(int) == 0)]
        return self.track.start + SPACING_M * kept

    def pieces(self, begin: float, end: float, longest: float = np.inf) -> Floats:
        """float[n + 1]: s of the ends of n pieces that follow the bends, none longer than `longest`."""
        regular = np.arange(begin, end, longest) if np.isfinite(longest) else np.array([begin])
        bends = self._along_bends(SAMPLE_M)
        places = np.sort(np.concatenate([regular, bends[(bends > begin) & (bends < end)], [end]]))
        return places[np.concatenate([[True], np.diff(places) > 0.3])]


@dataclass(frozen=True)
class Layout:
    """The roads of a scene."""

    scene: Scene
    main: Way
    cross: Way | None

    @property
    def ways(self) -> tuple[Way, ...]:
        """The main road and, at a junction, the cross road."""
        return (self.main,) if self.cross is None else (self.main, self.cross)

    @property
    def mouth(self) -> tuple[float, float]:
        """From which s to which s on the main road the cross road with its pavements and corners lies; far away without one."""
        junction = self.scene.road.junction
        if junction is None or self.cross is None:
            return 1e9, 1e9
        half = self.cross.left + max(self.cross.pavement, CORNER_M + 0.5)
        return junction.s - half, junction.s + half

    def has_arm(self, side: int) -> bool:
        """Does the cross road leave the main road to this side (1 left, -1 right)?"""
        junction = self.scene.road.junction
        return junction is not None and ("left" if side > 0 else "right") in junction.arms

    def blocks(self, side: int) -> list[tuple[float, float]]:
        """From s to s on the main road where nothing leaves it to `side` (1 left, -1 right)."""
        if not self.has_arm(side):
            return [(self.main.begin, self.main.end)]
        return [(self.main.begin, self.mouth[0]), (self.mouth[1], self.main.end)]

    def right_edge(self, s: Floats) -> Floats:
        """The d of the right edge of the asphalt of the main road at s, acceleration lane and ramp included."""
        road = self.scene.road
        if road.merge is None:
            return np.full_like(s, self.main.right)
        begin, end = road.merge
        lane = np.clip((end - s) / TAPER_M, 0.0, 1.0) * (s > begin - TAPER_M)
        ramp = np.clip((begin - s) / TAPER_M, 0.0, 1.0) * (s > begin - TAPER_M)
        return self.main.right - LANE_M * lane - 8.0 * ramp**2

    @cached_property
    def _samples(self) -> tuple[Floats, Floats, Floats]:
        """Poses float[m, 3] along all roads, and the d of their right and left edges there, float[m] each."""
        poses, rights, lefts = [], [], []
        for way in self.ways:
            s = np.arange(way.painted[0], way.painted[1] + SAMPLE_M, SAMPLE_M)
            poses.append(np.stack(way.track.world(s, 0.0), axis=1))
            wider = np.zeros_like(s) if way is self.main else self._corner(s)
            rights.append(self.right_edge(s) if way is self.main else way.right - wider)
            lefts.append(way.left + wider)
        return np.concatenate(poses), np.concatenate(rights), np.concatenate(lefts)

    def _corner(self, s: Floats) -> Floats:
        """By how much the cross road's mouth is wider at s, at most."""
        beyond = np.where(s > 0, s - self.main.left, self.main.right - s)
        return np.clip(CORNER_M - beyond, 0.0, CORNER_M)

    def clear(self, x: Floats, y: Floats, gap: float | Floats) -> NDArray[np.bool_]:
        """Which world points lie at least `gap` metres (one for all, or float[n, 1]) beside the asphalt of every road."""
        poses, rights, lefts = self._samples
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        dx, dy = x[..., None] - poses[:, 0], y[..., None] - poses[:, 1]
        along, across = np.abs(cos * dx + sin * dy), cos * dy - sin * dx
        on_road = (along < SAMPLE_M * 0.8) & (across > rights - gap) & (across < lefts + gap)
        return ~on_road.any(axis=-1)


def layout(scene: Scene) -> Layout:
    """The roads of a scene, over the range that its cameras can see."""
    road = scene.road
    ahead = 6.5 * road.limit + SIGHT_M
    main = Way(road.track, -BEHIND_M, ahead, road.right - road.margin, left_edge(road), road.pavement)
    if road.junction is None:
        return Layout(scene, main, None)
    arms, half = road.junction.arms, LANE_M + road.margin
    begin, end = -CROSS_M * ("right" in arms), CROSS_M * ("left" in arms)
    return Layout(scene, main, Way(road.junction.cross, begin, end, -half, half, road.pavement))


def left_edge(road: Road) -> float:
    """The d of the left edge of all asphalt of the main road."""
    far_side = FAR_CARRIAGEWAY_M if road.type == "highway" and not road.opposite else 0.0
    return road.left + road.margin + far_side
