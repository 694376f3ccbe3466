"""Road layouts: straight, bent, with a junction, with an acceleration lane; traffic lights and signs beside them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from drivedistill.world.driving.dice import Dice
from drivedistill.world.scene import HEAD_IDS, LANE_M, SIGN_IDS, Head, Junction, Road, RoadType, Sign
from drivedistill.world.track import Track, lay

BACK_M = 110.0
"""How far the main track reaches behind the ego's first place."""
AHEAD_M: dict[RoadType, float] = {"urban": 230.0, "residential": 180.0, "rural": 280.0, "highway": 400.0}
LIMITS: dict[RoadType, float] = {"urban": 13.0, "residential": 8.5, "rural": 17.0, "highway": 26.0}
"""m/s"""
LANES: dict[RoadType, tuple[int, int]] = {"urban": (2, 2), "residential": (1, 1), "rural": (1, 1), "highway": (3, 0)}
"""In the ego's direction, and in the other."""
GENTLE: dict[RoadType, float] = {"urban": 0.007, "residential": 0.008, "rural": 0.006, "highway": 0.0025}
"""Curvature of a bend that asks for no braking, 1/m."""
CROSS_REACH_M = 120.0
"""How far the cross road reaches to either side."""
POLE_M = 0.8
"""From the kerb to the pole of the traffic lights."""
LONGEST_ARM_M = 6.5
"""Of that pole, over the lanes."""
RADII: dict[RoadType, tuple[float, float]] = {
    "urban": (45.0, 80.0),
    "residential": (25.0, 45.0),
    "rural": (35.0, 80.0),
    "highway": (120.0, 200.0),
}
"""Of sharp bends, metres."""
Arm: TypeAlias = Literal["left", "right"]
SignKind: TypeAlias = Literal[
    "stop", "dirty stop", "speed 30", "speed 50", "speed 80", "works", "crosswalk", "yield", "merge"
]


def _main(kind: RoadType, pieces: list[tuple[float, float]]) -> Track:
    """The main track: `pieces` from s = 0 on, straight before and after."""
    rest = max(AHEAD_M[kind] - sum(length for length, _ in pieces), 20.0)
    return lay([(BACK_M, 0.0), *pieces, (rest, 0.0)], start=-BACK_M)


def _lanes(dice: Dice, kind: RoadType) -> tuple[int, int]:
    return (3, 3) if kind == "urban" and dice.chance(0.3) else LANES[kind]


def open_road(dice: Dice, kind: RoadType) -> Road:
    """A road without junctions: straight, or with one gentle bend."""
    curvature = GENTLE[kind] * dice.between(0.3, 1.0) * dice.side() if dice.chance(0.35) else 0.0
    bend = (dice.between(60.0, 140.0), curvature)
    lanes, opposite = _lanes(dice, kind)
    return Road(kind, _main(kind, [(dice.between(0.0, 40.0), 0.0), bend]), lanes, opposite, LIMITS[kind])


def bent_road(dice: Dice, kind: RoadType, approach: float, side: int) -> Road:
    """A road with a sharp bend to `side` after `approach` metres, and often one back."""
    radius = dice.between(*RADII[kind])
    first = (radius * np.radians(dice.between(45.0, 95.0)), side / radius)
    pieces = [(approach, 0.0), first]
    if dice.chance(0.4):
        radius = dice.between(*RADII[kind])
        pieces += [(dice.between(10.0, 30.0), 0.0), (radius * np.radians(dice.between(30.0, 80.0)), -side / radius)]
    lanes, opposite = LANES[kind]
    return Road(kind, _main(kind, pieces), lanes, opposite, LIMITS[kind])


def junction_road(
    dice: Dice,
    kind: RoadType,
    at: float,
    control: Literal["lights", "stop sign", "priority road"],
    arms: tuple[Arm, ...] = ("left", "right"),
) -> Road:
    """A straight road that another one crosses, or ends at, at s = `at`; behind the junction it may bend gently."""
    curvature = GENTLE[kind] * dice.between(0.3, 1.0) * dice.side() if dice.chance(0.3) else 0.0
    track = _main(kind, [(at + 45.0, 0.0), (70.0, curvature)])
    lanes, opposite = _lanes(dice, kind)
    middle = track.world(at, 0.0)
    cross = lay(
        [(2 * CROSS_REACH_M, 0.0)],
        start=-CROSS_REACH_M,
        origin=(float(middle.x), float(middle.y)),
        heading=float(middle.yaw) + np.pi / 2,
    )
    return Road(kind, track, lanes, opposite, LIMITS[kind], Junction(at, cross, arms, control))


def merging_road(dice: Dice, kind: RoadType, begin: float, end: float) -> Road:
    """A straight road with an acceleration lane to the right from s = `begin` to `end`."""
    lanes, opposite = (dice.count(2, 3), 0) if kind == "highway" else LANES[kind]
    return Road(kind, _main(kind, []), lanes, opposite, LIMITS[kind], merge=(begin, end))


def beside(road: Road, lane: int) -> list[int]:
    """The lanes of the ego's direction next to one of them, the left one first."""
    return [other for other in (lane - 1, lane + 1) if 0 <= other < road.lanes]


def stop_lines(road: Road) -> tuple[float, float, float, float]:
    """Where those who head along s, d, -s and -d stop at the junction; out of reach without one."""
    if road.junction is None or road.stop_line is None:
        return 1e9, 1e9, -1e9, -1e9
    setback = road.margin + 4.0
    return road.stop_line, road.right - setback, 2 * road.junction.s - road.stop_line, road.left + setback


def heads(road: Road) -> tuple[Head, ...]:
    """The traffic lights for the ego's direction, behind the junction: one over the lanes, one at its pole."""
    if road.junction is None or road.junction.control != "lights":
        return ()
    pole = road.right - road.margin - POLE_M
    arm = min(LONGEST_ARM_M, road.lanes * LANE_M * 0.8 + road.margin)  # to above the middle of the lanes, or beyond
    made = []
    for number, (d, height) in enumerate(((pole + arm, 4.9), (pole + 0.28, 2.6))):
        x, y, yaw = road.track.world(road.junction.s + 7.0, d, np.pi)
        made.append(Head(HEAD_IDS + number, float(x), float(y), height, float(yaw)))
    return tuple(made)


def sign_beside(
    road: Road,
    number: int,
    kind: SignKind,
    s: float,
    *,
    size: float = 0.85,
    hidden_by_bush: bool = False,
) -> Sign:
    """A sign for the ego's direction on the right of the road; `number` counts the signs of the scene from 0."""
    x, y, yaw = road.track.world(s, road.right - road.margin - 0.6 - (LANE_M if road.merge else 0.0), np.pi)
    return Sign(SIGN_IDS + number, kind, float(x), float(y), float(yaw), size, hidden_by_bush=hidden_by_bush)
