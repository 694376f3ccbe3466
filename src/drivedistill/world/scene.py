"""What a scene is before it is driven (road, weather, actors), and the log of a drive through it.

Right-hand traffic. On the main road, lanes of the ego's direction are counted from the centre line to the right
(lane i lies at d = -(i + 1/2) LANE_M), those of the other direction to the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.track import Floats, Track

LANE_M = 3.5
STEP_S = 0.1
STEPS = 121
"""Twelve seconds: key frames lie in the first six, and the navigation command looks six seconds ahead."""

EGO_SIZE = (4.7, 1.9, 1.6)
BRAKE_LIGHTS = -1.2
"""Acceleration in m/s^2 below which brake lights are lit."""
STANDING = 0.35
"""Speed in m/s below which something counts as stopped."""
HEAD_IDS, SIGN_IDS = 1001, 2001
"""Instance ids: actors count from 1, traffic light heads and signs from here; 0 is everything else."""

Weather = Literal["clear", "cloudy", "rain", "fog", "snow"]
Light = Literal["day", "dusk", "night"]
RoadType = Literal["urban", "residential", "rural", "highway"]
Signal = Literal["red", "yellow", "green"]
WEATHERS: tuple[Weather, ...] = get_args(Weather)
LIGHTS: tuple[Light, ...] = get_args(Light)
ROAD_TYPES: tuple[RoadType, ...] = get_args(RoadType)

Role = Literal[
    "traffic",  # drives in a lane of the ego's direction
    "oncoming",  # drives in a lane of the other direction
    "crossing",  # drives on the cross road
    "merging",  # comes from the acceleration lane
    "wrong way",  # comes toward the ego in the ego's lane
    "parked",
    "walking",  # along the road
    "crosser",  # person or animal that crosses the road
    "obstacle",  # stands or lies where one drives
    "bystander",  # stands beside the road
]
Reason = Literal[
    "free",  # nothing binds
    "lead",  # a vehicle ahead in the lane
    "light",  # a red or yellow light
    "stop sign",
    "turn",  # slows down for, or drives, a turn at a junction
    "curve",  # slows down for a bend
    "person",  # a person in or entering the path
    "animal",
    "obstacle",  # something blocks the lane
    "wrong way",
    "crossing",  # a vehicle crosses in front
    "merging",  # a vehicle squeezes in
    "yield",  # waits for oncoming or crossing traffic that has priority
]


@dataclass(frozen=True)
class Conditions:
    """Weather and light."""

    weather: Weather
    light: Light
    street_lamps: bool
    """Lit when it is not day."""


@dataclass(frozen=True)
class Junction:
    """A road that crosses the main road at a right angle."""

    s: float
    """Where the centre line of the cross road meets the main track."""
    cross: Track
    """The cross road's centre line, from the right of the main road to its left; s = 0 in the middle of the junction.
    Its traffic keeps right: what drives along it is at d < 0, what comes against it at d > 0."""
    arms: tuple[Literal["left", "right"], ...]
    """Both, or the one arm of a T-junction."""
    control: Literal["lights", "stop sign", "priority road"]
    """What the ego meets. `priority road`: the cross traffic waits."""


@dataclass(frozen=True)
class Road:
    """The main road."""

    type: RoadType
    track: Track
    lanes: int
    """In the ego's direction."""
    opposite: int
    limit: float
    """m/s"""
    junction: Junction | None = None
    crosswalk: float | None = None
    """s of a zebra crossing away from junctions."""
    merge: tuple[float, float] | None = None
    """s of begin and end of an acceleration lane to the right of the last lane."""

    @property
    def right(self) -> float:
        """The d of the right edge of the lanes."""
        return -self.lanes * LANE_M

    @property
    def left(self) -> float:
        """The d of the left edge of the lanes."""
        return self.opposite * LANE_M

    @property
    def margin(self) -> float:
        """Width of the parking strip or shoulder beside the lanes, in metres."""
        return {"urban": 2.3, "residential": 2.3, "highway": 1.6, "rural": 0.8}[self.type]

    @property
    def pavement(self) -> float:
        """Width of the pavement beside the margin, in metres; 0 where people do not walk."""
        return 3.2 if self.type in ("urban", "residential") else 0.0

    @property
    def stop_line(self) -> float | None:
        """The s where a vehicle of the ego's direction stops at the junction."""
        return None if self.junction is None else self.junction.s - 9.5

    def lane(self, index: int) -> float:
        """The d of the middle of lane `index`."""
        return -(index + 0.5) * LANE_M


@dataclass(frozen=True)
class Head:
    """A traffic light for the ego's direction."""

    id: int
    x: float
    y: float
    z: float
    """Of its lower edge."""
    facing: float
    """World direction in which it shines."""


@dataclass(frozen=True)
class Sign:
    """A traffic sign on a pole; `kind` is also the name of its texture."""

    id: int
    kind: Literal["stop", "dirty stop", "speed 30", "speed 50", "speed 80", "works", "crosswalk", "yield", "merge"]
    x: float
    y: float
    facing: float
    size: float = 0.85
    z: float = 2.0
    """Of its lower edge."""
    hidden_by_bush: bool = False


@dataclass(frozen=True)
class Actor:
    """Anything that is not scenery."""

    id: int
    """1, 2, ...: its row in the log, and its number in the instance masks."""
    kind: str
    """A key of `catalogue.KINDS`."""
    colour: str
    """A key of `catalogue.COLOURS`; part of the name where the kind is painted."""
    seed: int
    """Of its shape, clothes and pace."""
    role: Role
    hazard: bool = False
    """It belongs to what the scene is about."""
    headlights: bool = False
    """Lit even by day."""

    @property
    def moves(self) -> bool:
        """It may move in the course of a drive."""
        return self.role not in ("parked", "obstacle", "bystander")


@dataclass(frozen=True)
class Scene:
    """A place, its weather and everybody in it."""

    kind: str
    """What it is about, e.g. `follow` or `fallen_cargo`."""
    manoeuvre: str
    """The regular kind that is driven; differs from `kind` where weather or light is the corner case."""
    seed: int
    corner: bool
    conditions: Conditions
    road: Road
    actors: tuple[Actor, ...]
    heads: tuple[Head, ...] = ()
    signs: tuple[Sign, ...] = ()
    held_out: bool = False
    """It shows a hazard that training scenes never show."""


@dataclass(frozen=True)
class Decision:
    """Why the expert did what it did in one step: the constraint that bound it."""

    reason: Reason
    actor: int = 0
    """Whom it reacted to; 0: nobody."""


@dataclass(frozen=True)
class Drive:
    """A scene and what happened in it. Row 0 is the ego, row i the actor with id i; A actors, T = STEPS steps."""

    scene: Scene
    poses: Floats
    """float[A + 1, T, 3]: world x, y, yaw of the middle of the footprint"""
    speeds: Floats
    """float[A + 1, T], m/s"""
    accelerations: Floats
    """float[A + 1, T], m/s^2, along the direction of travel"""
    indicators: NDArray[np.int8]
    """int8[A + 1, T]: 1 left, -1 right, 0 off"""
    offsets: Floats
    """float[T]: the ego's d on the main track (its last one once it has left the main road in a turn)"""
    turning: NDArray[np.int8]
    """int8[T]: 1 or -1 while the ego turns left or right at a junction, 0 otherwise"""
    signals: tuple[Signal | None, ...]
    """The ego's traffic light per step; None without one."""
    decisions: tuple[Decision, ...]

    def braking(self, actor: int, step: int) -> bool:
        """Are its brake lights lit? They are when it brakes, and when it stands in traffic."""
        standing = self.speeds[actor, step] < STANDING
        in_traffic = actor > 0 and self.scene.actors[actor - 1].role in ("traffic", "merging", "crossing")
        return bool(self.accelerations[actor, step] < BRAKE_LIGHTS or (standing and in_traffic))

    def seen_from_ego(self, actor: int, step: int) -> tuple[float, float, float]:
        """(x forward, y left, yaw) of an actor in the ego's frame, metres and radians in (-pi, pi]."""
        ego, other = self.poses[0, step], self.poses[actor, step]
        dx, dy = other[0] - ego[0], other[1] - ego[1]
        cos, sin = np.cos(ego[2]), np.sin(ego[2])
        yaw = np.pi - (np.pi - (other[2] - ego[2])) % (2 * np.pi)
        return float(cos * dx + sin * dy), float(cos * dy - sin * dx), float(yaw)
