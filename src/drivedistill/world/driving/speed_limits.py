"""How fast the ego may be at each place of its route, so that no bend and no turn throws anybody about."""

from __future__ import annotations

import numpy as np

from drivedistill.world.driving.route import Turn
from drivedistill.world.driving.traffic import NEVER, TURN_ACCELERATION
from drivedistill.world.scene import Reason, Road
from drivedistill.world.track import SPACING_M

CURVE_ACCELERATION = 2.0
"""Lateral, in a bend, m/s^2."""
BRAKING = 1.7
"""With which it slows down for a bend or a turn, m/s^2."""


class SpeedLimits:
    """The highest comfortable speed along the route."""

    def __init__(self, road: Road, turn: Turn) -> None:
        places = np.arange(0.0, road.track.end, SPACING_M)
        bends = np.where(places < turn.start, np.abs(road.track.curvature(places)), 0.0)
        in_turn = (places >= turn.start) & (places <= turn.start + turn.length)
        squares = CURVE_ACCELERATION / np.maximum(bends, 1e-6)
        squares[in_turn] = TURN_ACCELERATION * turn.radius
        # Braking with b from v to w takes (v^2 - w^2) / 2b metres: look back from the end of the road.
        ahead = np.minimum.accumulate((squares + 2 * BRAKING * places)[::-1])[::-1] - 2 * BRAKING * places
        self._speeds: list[float] = np.sqrt(ahead).tolist()
        self._turn_end = turn.start + turn.length + SPACING_M if turn.start < NEVER else -NEVER

    def at(self, place: float) -> tuple[float, Reason]:
        """The limit in m/s at a place of the route, and what asks for it."""
        index = min(int(place / SPACING_M), len(self._speeds) - 1)
        return self._speeds[index], "turn" if place < self._turn_end else "curve"
