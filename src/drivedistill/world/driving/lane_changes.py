"""When the ego changes lane: its route asks for it, or somebody slow, stopped or on the wrong side is ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from drivedistill.world.driving.roads import beside
from drivedistill.world.driving.route import FRONT, SIDE, Shift, Turn, who_blocks
from drivedistill.world.driving.stage import Stage
from drivedistill.world.driving.traffic import WALK, Agents
from drivedistill.world.scene import LANE_M

INDICATE_S = 1.6
"""It indicates for so long before it moves sideways."""
SHIFT_S = 3.2
"""How long a change of lane takes."""
STEEPEST = 2.6
"""A change of lane takes at least so many metres along the road for one across it."""
ROOM_M = 0.9
"""Left between the ego and somebody whom it passes on the other side of the centre line."""
GIVE_WAY_M = 2.4
"""How far it moves to the right for somebody who comes the wrong way."""
OLD_S = 5.0
"""A plan that could not be carried out for so long is dropped when its cause is gone."""


class Plan(NamedTuple):
    """A change of lane that is wanted and indicated, but not begun."""

    target: float
    """d"""
    since: float
    """seconds"""
    about: int = 0
    """Who is to be passed; 0: the route wants it."""
    evade: bool = False
    """Out of the way of somebody who comes the wrong way: without delay."""


class LaneChanges:
    """The ego's place across the road."""

    def __init__(self, stage: Stage, turn: Turn, agents: Agents) -> None:
        self._stage, self._turn, self._agents = stage, turn, agents
        self._wishes = list(stage.wishes)
        self._home: float | None = None
        """d of its lane while it passes somebody outside of it."""
        self.lane = stage.lane
        """Its lane, or the one that it is changing to."""
        self.shift = Shift(stage.d, stage.d)
        self.plan: Plan | None = None
        self.blocked_by = 0
        """Who prevents the planned change; 0: nobody."""

    def indicator(self) -> int:
        """1 left, -1 right, 0 off."""
        target = self.shift.target if self.plan is None else self.plan.target
        change = target - self.shift.origin
        return 0 if abs(change) < 0.1 else 1 if change > 0.0 else -1

    def think(self, time: float, place: float, speed: float, seen: Sequence[Sequence[float]]) -> None:
        """Plan, begin or end a change of lane.

        Args:
            time: Seconds since the start.
            place: Of the middle of the ego on its route.
            speed: Of the ego.
            seen: Rows of `route.in_the_way`.
        """
        if self.shift.target != self.shift.origin:
            if place < self.shift.start + self.shift.length:
                return
            self.shift = Shift(self.shift.target, self.shift.target)
        if self.plan is None:
            self.plan = self._wanted(time, place, speed, seen)
        if self.plan is None:
            return
        self.blocked_by = self._blocker(self.plan, place, speed)
        ready = time - self.plan.since >= (0.0 if self.plan.evade else INDICATE_S)
        if ready and not self.blocked_by and speed > 0.5:
            self._begin(self.plan, place, speed, seen)
        elif time - self.plan.since > OLD_S and self.plan.about and not self._still_ahead(self.plan.about, seen):
            self.plan = None

    def _still_ahead(self, row: int, seen: Sequence[Sequence[float]]) -> bool:
        return any(round(one[0]) == row for one in seen)

    def _blocker(self, plan: Plan, place: float, speed: float) -> int:
        if plan.evade:
            return 0
        return who_blocks(self._agents, self._turn, plan.target, place, speed, plan.about)

    def _begin(self, plan: Plan, place: float, speed: float, seen: Sequence[Sequence[float]]) -> None:
        shortest = STEEPEST * abs(plan.target - self.shift.origin)
        rooms = [one[1] + FRONT for one in seen if round(one[0]) == plan.about and one[2] < 0.5 * speed]
        length = min([max(SHIFT_S * speed, 1.3 * shortest), *rooms])
        if length < shortest:
            return
        self.shift = Shift(self.shift.origin, plan.target, place, length)
        self.plan, self.blocked_by = None, 0
        road = self._stage.road
        for lane in range(road.lanes):
            if abs(road.lane(lane) - plan.target) < 0.01:
                self.lane = lane

    def _wanted(self, time: float, place: float, speed: float, seen: Sequence[Sequence[float]]) -> Plan | None:
        line = self._stage.road.stop_line
        if line is not None and -12.0 < line - place < 25.0:
            return None
        if self._home is not None:
            if who_blocks(self._agents, self._turn, self._home, place, speed, 0):
                return None
            home, self._home = self._home, None
            return Plan(home, time)
        if self._wishes and time >= self._wishes[0].time:
            return Plan(self._stage.road.lane(self._wishes.pop(0).lane), time)
        for row, gap, other, _ in sorted(seen, key=lambda one: one[1]):
            plan = self._to_pass(int(row), gap, other, time, place, speed)
            if plan is not None:
                return plan
        return None

    def _to_pass(self, row: int, gap: float, other: float, time: float, place: float, speed: float) -> Plan | None:
        role = self._stage.actors[row - 1].role
        if role == "wrong way" and other < -0.5:
            return self._evasion(row, gap, other, time, speed)
        still = role in ("parked", "obstacle", "bystander", "wrong way")
        slow = role == "traffic" and other < self._stage.overtakes * self._stage.cruise
        if gap > max(40.0, 5.0 * speed) or not (slow or still):
            return None
        for target in self._ways_around(row, place, gap):
            if not who_blocks(self._agents, self._turn, target, place, speed, row):
                if not self._is_lane(target):
                    self._home = self.shift.origin
                return Plan(target, time, row)
        return None

    def _is_lane(self, d: float) -> bool:
        road = self._stage.road
        return any(abs(road.lane(lane) - d) < 0.01 for lane in range(road.lanes))

    def _ways_around(self, row: int, place: float, gap: float) -> Iterator[float]:
        """The d of places where it could pass somebody: lanes to the left and right, else over the centre line."""
        road, agents = self._stage.road, self._agents
        yaw = agents["yaw"]
        across = np.abs(np.sin(yaw)) * agents["half_length"] + np.abs(np.cos(yaw)) * agents["half_width"]
        lanes = beside(road, self.lane)
        for lane in lanes:
            if abs(road.lane(lane) - agents["d"][row]) > across[row] + SIDE + 0.3:
                yield road.lane(lane)
        if not lanes and road.opposite:
            near = place + gap + FRONT
            group = (np.abs(agents["d"] - self.shift.origin) < LANE_M / 2 + 0.4) & (agents["way"] != WALK)
            group &= (agents["s"] > near - 3.0) & (agents["s"] < near + 25.0) & (agents["heading"] != np.pi)
            group[[0, row]] = False, True
            target = float((agents["d"] + across)[group].max()) + ROOM_M + SIDE
            yield max(target, self.shift.origin + 1.4)

    def _evasion(self, row: int, gap: float, other: float, time: float, speed: float) -> Plan | None:
        if gap > 6.0 * (speed - other):
            return None
        road = self._stage.road
        if self.lane + 1 < road.lanes:
            return Plan(road.lane(self.lane + 1), time, row)
        self._home = self.shift.origin
        edge = road.right - road.margin + SIDE + 0.15
        return Plan(max(self.shift.origin - GIVE_WAY_M, edge), time, row, evade=True)
