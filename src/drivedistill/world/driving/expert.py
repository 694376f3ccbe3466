"""The expert driver: keeps its distance, obeys lights and priority, slows for bends, and says what binds it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.lane_changes import LaneChanges
from drivedistill.world.driving.priority import HARDEST, Priority
from drivedistill.world.driving.route import BY_SQUEEZING, FRONT, from_route, in_the_way, shifted
from drivedistill.world.driving.speed_limits import SpeedLimits
from drivedistill.world.driving.stage import Stage
from drivedistill.world.driving.traffic import Agents, idm
from drivedistill.world.scene import STEP_S, Actor, Decision, Reason, Signal, Weather
from drivedistill.world.track import SPACING_M, Floats

SIGHT_M: dict[Weather, float] = {"clear": 110.0, "cloudy": 110.0, "rain": 80.0, "snow": 70.0, "fog": 55.0}
"""How far it reacts to anything."""
NIGHT = 0.75
"""What the night leaves of it."""
COMFORTABLE = 3.0
"""Deceleration in m/s^2 at which it still stops for a yellow light, and with which no scene begins."""
STOPS_S = 1.0
"""How long it stands at a stop sign."""
BINDS = 0.25
"""A constraint that takes less than this from the acceleration on a free road, m/s^2, is no reason for anything."""
ALONG = 0.7
"""Somebody of whose speed at least this part is along the route drives ahead, not across."""
MOVES_OFF = 2.0
"""Behind somebody who is close but faster it brakes no harder than this, m/s^2."""
TO_LIMIT_S, LIMIT_AHEAD_S = 0.5, 0.3
"""It reaches the speed limit of a bend within, and looks at it ahead by, so much time."""
END_M = 12.0
"""It stops so far before the end of the acceleration lane."""
INDICATE_TURN_S = 4.0
"""It indicates a turn so long before it, and at least over `INDICATE_TURN_M`."""
INDICATE_TURN_M = 30.0


class Constraint(NamedTuple):
    """An acceleration in m/s^2 that must not be exceeded, and why."""

    acceleration: float
    reason: Reason
    actor: int = 0


class Expert:
    """The ego's driver: `decide`, then `advance`, in every step."""

    def __init__(self, stage: Stage, agents: Agents, bends: Floats) -> None:
        self._stage, self._agents, self._bends = stage, agents, bends
        self._turn = stage.route_turn
        self._limits = SpeedLimits(stage.road, self._turn)
        self._priority = Priority(stage, self._turn, agents)
        self._lanes = LaneChanges(stage, self._turn, agents)
        self._seen = np.zeros((len(agents), 4))
        self._sight = SIGHT_M[stage.draw.weather] * (NIGHT if stage.draw.light == "night" else 1.0)
        self._line = stage.road.stop_line
        self._place = 0.0
        self._speed = min(stage.speed, self._limits.at(0.0)[0])
        self._stood = 0.0
        while self._speed > 1.0 and any(self._toward(*one).acceleration < -COMFORTABLE for one in self._look(0.0)):
            self._speed *= 0.93  # it has seen them before the scene begins
        agents[0]["v"] = self._speed

    @property
    def turning(self) -> int:
        """1 or -1 between begin and end of the turn at the junction, otherwise 0."""
        turn = self._turn
        return int(turn.sign) if turn.start <= self._place < turn.start + turn.length else 0

    def decide(self, time: float, signal: Signal | None) -> Decision:
        """Set acceleration and indicator of this step; the constraint that binds is the reason."""
        seen = self._look(time)
        self._lanes.think(time, self._place, self._speed, seen)
        limit, bend = self._limits.at(self._place + LIMIT_AHEAD_S * self._speed)
        constraints = [
            Constraint(self._follow(1e3, 0.0), "free"),
            Constraint(min(max((limit - self._speed) / TO_LIMIT_S, -4.0), 2.0), bend),
            *(self._toward(*one) for one in seen),
            *self._at_junction(signal),
            *self._on_acceleration_lane(),
        ]
        free = constraints[0].acceleration
        binding = min(constraints, key=lambda constraint: constraint.acceleration)
        ego = self._agents[0]
        ego["acceleration"] = max(binding.acceleration, -self._speed / STEP_S)
        ego["indicator"] = self._lanes.indicator() or self._indicates_turn()
        return Decision(binding.reason, binding.actor) if binding.acceleration < free - BINDS else Decision("free")

    def advance(self) -> None:
        """Drive for one step."""
        ego = self._agents[0]
        self._speed = max(0.0, self._speed + float(ego["acceleration"]) * STEP_S)
        d, slope = shifted(self._lanes.shift, self._place)
        bend = self._bend() if self._place < self._turn.start else self._turn.sign / self._turn.radius
        off = d if self._place < self._turn.start else d - self._turn.lane
        self._place += self._speed * STEP_S / math.sqrt(1.0 + slope * slope) / (1.0 - off * bend)
        d, slope = shifted(self._lanes.shift, self._place)
        ego["s"], ego["d"], heading = from_route(self._place, d, self._turn)
        ego["v"], ego["heading"], ego["yaw"] = self._speed, heading, heading + math.atan(slope)

    def _look(self, time: float) -> list[list[float]]:
        """Everybody in the way: row, gap, speed along the route, whether they squeeze in."""
        shift, sight = self._lanes.shift, self._sight
        count = in_the_way(self._agents, self._turn, shift, self._place, self._speed, sight, time, self._seen)
        rows: list[list[float]] = self._seen[:count].tolist()
        return rows

    def _follow(self, gap: float, other: float, headway: float = 1.2, standstill: float = 2.5) -> float:
        """The acceleration that keeps a distance."""
        return idm(self._speed, self._stage.cruise, max(gap, 0.3), self._speed - other, headway, standstill)

    def _toward(self, row: float, gap: float, other: float, squeezing: float) -> Constraint:
        """What somebody in the way asks for."""
        actor = self._stage.actors[int(row) - 1]
        ahead = other > ALONG * float(self._agents[actor.id]["v"])
        reason = _reason(actor, squeezing == BY_SQUEEZING, drives_ahead=ahead)
        if reason == "lead":
            hardest = -MOVES_OFF if other > self._speed + 1.0 else -math.inf
            return Constraint(max(self._follow(gap, other), hardest), reason, actor.id)
        if reason == "merging":
            return Constraint(max(self._follow(gap, other, 0.9), -3.0), reason, actor.id)
        return Constraint(self._follow(gap, other, 0.6, 4.0 if reason == "wrong way" else 2.5), reason, actor.id)

    def _at_junction(self, signal: Signal | None) -> list[Constraint]:
        """What lights, the stop sign and those with priority ask for."""
        constraints: list[Constraint] = []
        if self._line is None:
            return constraints
        gap = self._line - self._place - FRONT
        junction = self._stage.road.junction
        if gap > -0.6 and signal in ("red", "yellow"):
            needed = self._speed**2 / 2 / max(gap, 0.1)
            if signal == "red" or needed < COMFORTABLE:
                constraints.append(Constraint(self._follow(gap, 0.0, 0.5, 1.2), "light"))
        if junction is not None and junction.control == "stop sign" and gap > -0.6 and self._stood < STOPS_S:
            self._stood += STEP_S if self._speed < 0.4 and gap < 3.0 else 0.0
            return [*constraints, Constraint(self._follow(gap, 0.0, 0.4, 0.8), "stop sign")]
        rival = self._priority.rival(self._place, self._speed)
        if rival:
            gap = self._priority.wait_at - self._place
            constraints.append(Constraint(max(self._follow(gap, 0.0, 0.5, 0.8), -HARDEST), "yield", rival))
        return constraints

    def _on_acceleration_lane(self) -> list[Constraint]:
        """On the acceleration lane it makes room for somebody who is where it wants to go."""
        road = self._stage.road
        if road.merge is None or self._lanes.lane < road.lanes:
            return []
        blocker = self._lanes.blocked_by
        if not blocker:
            return []
        gap = road.merge[1] - END_M - self._place - FRONT
        ahead = float(self._agents[blocker]["s"]) > self._place - 3.0
        adapted = min(self._follow(gap, 0.0, 0.6), -0.9 if ahead else 0.6)
        return [Constraint(adapted, "yield", blocker)]

    def _indicates_turn(self) -> int:
        """1 left, -1 right, 0 off."""
        before = self._turn.start - self._place
        near = before < max(INDICATE_TURN_M, INDICATE_TURN_S * self._speed)
        return int(self._turn.sign) if near and before > -self._turn.length else 0

    def _bend(self) -> float:
        """Curvature of the main track where the ego is."""
        index = int((self._place - self._stage.road.track.start) / SPACING_M)
        return float(self._bends[min(max(index, 0), len(self._bends) - 1)])


def _reason(actor: Actor, squeezing: bool, *, drives_ahead: bool) -> Reason:
    """The word for a reaction to somebody in the way."""
    if actor.role == "wrong way":
        return "wrong way"
    if actor.role in ("crossing", "oncoming"):
        return "lead" if drives_ahead else "crossing" if actor.role == "crossing" else "yield"
    if actor.role in ("traffic", "merging"):
        return "merging" if squeezing else "lead"
    family = KINDS[actor.kind].family
    if family == "person":
        return "person"
    return "animal" if family == "animal" else "obstacle"
