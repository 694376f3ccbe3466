"""The stage of a scene while it is built: the road, the ego's plan, and actors with their scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from drivedistill.world.catalogue import COLOURS, KINDS
from drivedistill.world.driving.dice import Dice
from drivedistill.world.driving.roads import LIMITS, SignKind, heads, sign_beside
from drivedistill.world.driving.route import SIDE, Turn
from drivedistill.world.driving.signals import Phase
from drivedistill.world.driving.traffic import AGENT, Agents, Script
from drivedistill.world.scene import EGO_SIZE, Actor, Conditions, Light, Road, RoadType, Role, Scene, Sign, Weather

PAINTS = tuple(COLOURS)
PAINT_WEIGHTS = (0.2, 0.16, 0.16, 0.14, 0.1, 0.1, 0.04, 0.03, 0.03, 0.04)
LIVERIES = {"taxi": "yellow", "fire truck": "red", "police car": "white", "ambulance": "white", "excavator": "yellow"}
CARS = ("sedan", "SUV", "hatchback", "van", "pickup", "taxi")
CAR_WEIGHTS = (0.34, 0.22, 0.16, 0.1, 0.1, 0.08)
VEHICLES = (*CARS, "truck", "bus")
VEHICLE_WEIGHTS = (0.32, 0.2, 0.14, 0.09, 0.08, 0.05, 0.07, 0.05)
SLOWER: dict[Weather, float] = {"clear": 1.0, "cloudy": 1.0, "rain": 0.8, "fog": 0.55, "snow": 0.55}
"""What the weather leaves of the speed."""
CROSS_LANE_M = 1.75
"""Middle of a lane of the cross road from its centre line."""
RIGHT_RADIUS_M, LEFT_RADIUS_M = 6.2, 9.5
"""Of the ego's turns at junctions."""


class Draw(NamedTuple):
    """What a scene is drawn from."""

    kind: str
    manoeuvre: str
    """The regular kind that is driven, or `kind` itself."""
    seed: int
    corner: bool
    dice: Dice
    weather: Weather
    light: Light
    unlit: bool
    """No street lamps, whatever the road."""
    held_out: bool
    """Hazards have appearances that are held out."""


class Wish(NamedTuple):
    """The ego's route asks for another lane."""

    time: float
    """seconds; from then on it indicates"""
    lane: int


def pace(draw: Draw, road: RoadType) -> tuple[float, float]:
    """Desired and first speed of the ego on a type of road, m/s."""
    cruise = LIMITS[road] * SLOWER[draw.weather] * draw.dice.between(0.9, 1.02)
    return cruise, cruise * draw.dice.between(0.8, 1.0)


@dataclass
class Stage:
    """A scene in the making. Places are road coordinates; the ego starts at s = 0."""

    draw: Draw
    road: Road
    lane: int
    """The ego's; `road.lanes` is the acceleration lane."""
    cruise: float
    """The ego's desired speed, m/s."""
    speed: float
    """The ego's first speed, m/s."""
    turn: int = 0
    """What the ego does at the junction: 1 left, -1 right, 0 straight on."""
    wishes: list[Wish] = field(default_factory=list)
    overtakes: float = 0.0
    """The ego overtakes who is slower than this part of its desired speed."""
    phases: list[Phase] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    scripts: list[Script] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    """s, d, half length and half width of the actors"""
    held_out: bool = False
    quiet_lane: int | None = None
    """A lane that background traffic mostly leaves alone near the ego, so that it can be used."""
    no_parking: list[float] = field(default_factory=list)
    """s near which nobody parks."""

    @property
    def dice(self) -> Dice:
        """The generator of the scene."""
        return self.draw.dice

    @property
    def d(self) -> float:
        """Where the ego starts."""
        return self.road.lane(self.lane)

    @property
    def route_turn(self) -> Turn:
        """The quarter circle of the ego's turn; without one it is out of reach."""
        if self.road.junction is None or self.turn == 0:
            return Turn()
        radius = LEFT_RADIUS_M if self.turn > 0 else RIGHT_RADIUS_M
        exit_lane = self.road.junction.s + self.turn * CROSS_LANE_M
        return Turn(exit_lane - radius, self.d, radius, float(self.turn))

    def taken(self, s: float, d: float, half_length: float, half_width: float) -> bool:
        """Does a rectangle along the road overlap, or nearly touch, somebody on the stage or the ego?"""
        if abs(s) < half_length + EGO_SIZE[0] / 2 + 1.0 and abs(d - self.d) < half_width + SIDE + 0.2:
            return True
        for other_s, other_d, length, width in self.boxes:
            if abs(other_s - s) < half_length + length + 0.6 and abs(other_d - d) < half_width + width + 0.15:
                return True
        return False

    def add(
        self,
        kind: str,
        role: Role,
        script: Script,
        *,
        hazard: bool = False,
        headlights: bool = False,
        force: bool = False,
    ) -> int:
        """Put somebody or something on the stage.

        Returns:
            The id; 0: the place is taken (which `force` ignores).
        """
        length, width, _ = KINDS[kind].size
        cos, sin = abs(math.cos(script.heading)), abs(math.sin(script.heading))
        half_length, half_width = (cos * length + sin * width) / 2, (sin * length + cos * width) / 2
        if not force and self.taken(script.s, script.d, half_length, half_width):
            return 0
        colour = LIVERIES.get(kind) or self.dice.pick(PAINTS, PAINT_WEIGHTS)
        number = len(self.actors) + 1
        self.actors.append(Actor(number, kind, colour, self.dice.seed(), role, hazard, headlights))
        self.scripts.append(script)
        self.boxes.append((script.s, script.d, half_length, half_width))
        return number

    def remove(self, numbers: set[int]) -> None:
        """Take actors off the stage; the ids of the others close up."""
        stay = [index for index, actor in enumerate(self.actors) if actor.id not in numbers]
        ids = {self.actors[index].id: number for number, index in enumerate(stay, start=1)}
        self.actors = [replace(self.actors[index], id=number) for number, index in enumerate(stay, start=1)]
        scripts = [self.scripts[index] for index in stay]
        self.scripts = [script._replace(towed_by=ids.get(script.towed_by, 0)) for script in scripts]
        self.boxes = [self.boxes[index] for index in stay]

    def add_sign(self, kind: SignKind, s: float, *, size: float = 0.85, hidden_by_bush: bool = False) -> None:
        """Put a sign to the right of the road."""
        number = len(self.signs)
        self.signs.append(sign_beside(self.road, number, kind, s, size=size, hidden_by_bush=hidden_by_bush))

    def agents(self) -> Agents:
        """The table that the simulation moves: `AGENT`[A + 1], the ego in row 0."""
        table: Agents = np.zeros(len(self.scripts) + 1, AGENT)
        ego = Script(0.0, self.d, v=self.speed, desired=self.cruise)
        rows = list(zip(*([ego, *self.scripts]), strict=True))
        for name, column in zip(Script._fields, rows, strict=True):
            table[name] = column
        sizes = [EGO_SIZE, *(KINDS[actor.kind].size for actor in self.actors)]
        table["half_length"] = [size[0] / 2 for size in sizes]
        table["half_width"] = [size[1] / 2 for size in sizes]
        table["yaw"] = table["heading"]
        return table

    def scene(self) -> Scene:
        """The scene, once everybody is on the stage."""
        draw, road = self.draw, self.road
        lamps = road.type != "rural" and not draw.unlit
        return Scene(
            kind=draw.kind,
            manoeuvre=draw.manoeuvre,
            seed=draw.seed,
            corner=draw.corner,
            conditions=Conditions(draw.weather, draw.light, lamps),
            road=road,
            actors=tuple(self.actors),
            heads=heads(road),
            signs=tuple(self.signs),
            held_out=self.held_out,
        )
