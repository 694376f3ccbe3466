"""Who has priority over the ego at a junction, and whether it must wait for them."""

from __future__ import annotations

import math
from typing import NamedTuple

from drivedistill.world.driving.route import FRONT, Turn
from drivedistill.world.driving.stage import Stage
from drivedistill.world.driving.traffic import Agents

LOOK_FROM_M = 40.0
"""Before the place where it would wait."""
MARGIN_S = 0.8
"""What must lie between the ego's leaving and another one's coming."""
PASSED_S = 0.7
"""What must lie between another one's leaving and the ego's coming."""
HARDEST = 4.5
"""Whoever would have to brake harder than this to wait goes on, m/s^2."""
STARTS = 1.0
"""Who stands is taken to start with this pace, m/s: somebody at the edge of the junction keeps his priority."""
CONFLICT_M = 2.6
"""Half the width of the strip that the ego drives through."""


class Rival(NamedTuple):
    """Somebody who may have priority, and where he and the ego would meet."""

    row: int
    axis: str
    """The coordinate along which he drives: s or d."""
    sign: float
    """Does it grow or fall?"""
    entry: float
    """Its value where he comes into the ego's way."""
    begin: float
    """Where on its route the middle of the ego comes into his way,"""
    end: float
    """and where it has left it."""


class Priority:
    """Oncoming traffic goes before a left turn, and crossing traffic before somebody at a stop sign."""

    def __init__(self, stage: Stage, turn: Turn, agents: Agents) -> None:
        self._agents, self._turn = agents, turn
        self.wait_at = math.inf
        """Where on the route the middle of the ego waits."""
        self._rivals: list[Rival] = []
        junction, line = stage.road.junction, stage.road.stop_line
        if junction is None or line is None:
            return
        moving = [(row, actor, stage.scripts[row - 1]) for row, actor in enumerate(stage.actors, start=1)]
        done = turn.start + turn.length + 1.0
        if junction.control == "stop sign":
            self.wait_at = line - FRONT
            for row, actor, script in moving:
                sign = float(round(math.sin(script.heading)))
                if actor.role != "crossing" or (stage.turn < 0 and sign > 0):
                    continue
                begin, end = script.s - CONFLICT_M - FRONT, script.s + CONFLICT_M + FRONT
                if stage.turn * sign > 0 or stage.turn < 0:
                    begin, end = turn.start + turn.length / 3, done  # both end up in one lane
                self._rivals.append(Rival(row, "d", sign, stage.d - sign * CONFLICT_M, begin, end))
        elif stage.turn > 0:
            self.wait_at = turn.start + 1.0
            for row, actor, _ in moving:
                if actor.role == "oncoming":
                    entry = junction.s + 2.0 + CONFLICT_M
                    self._rivals.append(Rival(row, "s", -1.0, entry, turn.start + 2.0, done))

    def rival(self, place: float, speed: float) -> int:
        """The actor for whom the ego has to wait at `wait_at`; 0: nobody."""
        left = self.wait_at - place
        if not -1.0 < left < LOOK_FROM_M or speed**2 > 2 * HARDEST * max(left, 1.0):
            return 0
        soonest, nearest = math.inf, 0
        for row, axis, sign, entry, begin, end in self._rivals:
            agent = self._agents[row]
            pace, length = max(float(agent["v"]), STARTS), 2 * float(agent["half_length"])
            distance = sign * (entry - float(agent[axis])) - length / 2
            through = distance + length + 2 * CONFLICT_M
            enters_in, gone_in = max(distance, 0.0) / (pace + 1.0), through / pace
            meets = gone_in + PASSED_S > _duration(begin - place, speed)
            meets &= enters_in < _duration(end - place, speed) + MARGIN_S
            if through > 0.0 and meets and enters_in < soonest:
                soonest, nearest = enters_in, row
        return nearest


def _duration(distance: float, speed: float) -> float:
    """Seconds for a distance at a junction, from `speed`, with 1.8 m/s^2 up to the pace of a turn."""
    if distance <= 0.0:
        return 0.0
    return max(distance / 5.5, (math.sqrt(speed * speed + 3.6 * distance) - speed) / 1.8)
