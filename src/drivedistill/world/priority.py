"""Who has priority over the ego at a junction, and whether it must wait for them."""

from __future__ import annotations

import math

from drivedistill.world.route import FRONT, Turn
from drivedistill.world.stage import Stage
from drivedistill.world.traffic import Agents

LOOK_FROM_M = 40.0
"""Before the place where it would wait."""
MARGIN_S = 0.8
"""What must lie between the ego's leaving and another one's coming."""
CONFLICT_M = 2.6
"""Half the width of the strip that the ego drives through."""


class Priority:
    """Oncoming traffic goes before a left turn, and crossing traffic before somebody at a stop sign."""

    def __init__(self, stage: Stage, turn: Turn, agents: Agents) -> None:
        self._agents, self._turn = agents, turn
        self.wait_at = math.inf
        """Where on the route the middle of the ego waits."""
        self._leave_at = 0.0
        self._rivals: list[tuple[int, str, float, float]] = []
        """Row, coordinate that changes, where its front enters the conflict (in its direction), its direction."""
        junction, line = stage.road.junction, stage.road.stop_line
        if junction is None or line is None:
            return
        if junction.control == "stop sign":
            self.wait_at = line - FRONT
            self._leave_at = turn.start + turn.length if stage.turn else junction.s + 4.0 + FRONT
            for row, actor in enumerate(stage.actors, start=1):
                sign = round(math.sin(stage.scripts[row - 1].heading))
                if actor.role == "crossing" and not (stage.turn < 0 and sign > 0):
                    self._rivals.append((row, "d", stage.d - sign * CONFLICT_M, float(sign)))
        elif stage.turn > 0:
            self.wait_at = turn.start + 1.0
            self._leave_at = turn.start + turn.length + 1.0
            for row, actor in enumerate(stage.actors, start=1):
                if actor.role == "oncoming":
                    self._rivals.append((row, "s", junction.s + 2.0 + CONFLICT_M, -1.0))

    def rival(self, place: float, speed: float) -> int:
        """The actor for whom the ego has to wait at `wait_at`; 0: nobody."""
        if not self.wait_at - LOOK_FROM_M < place < self.wait_at + 1.0:
            return 0
        comes_in = _duration(self.wait_at - place, speed)
        leaves_in = _duration(self._leave_at - place, speed)
        soonest, nearest = math.inf, 0
        for row, axis, entry, sign in self._rivals:
            agent = self._agents[row]
            rival_speed = float(agent["v"])
            if rival_speed < 0.5:
                continue
            distance = sign * (entry - float(agent[axis])) - float(agent["half_length"])
            through = distance + 2 * float(agent["half_length"]) + 2 * CONFLICT_M + 4.0
            enters_in, gone_in = max(distance, 0.0) / (rival_speed + 1.0), through / rival_speed
            if through > 0.0 and gone_in > comes_in and enters_in < leaves_in + MARGIN_S and enters_in < soonest:
                soonest, nearest = enters_in, row
        return nearest


def _duration(distance: float, speed: float) -> float:
    """Seconds for a distance at a junction, from `speed`, with 1.8 m/s^2 up to the pace of a turn."""
    if distance <= 0.0:
        return 0.0
    return max(distance / 5.5, (math.sqrt(speed * speed + 3.6 * distance) - speed) / 1.8)
