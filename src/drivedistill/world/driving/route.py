"""The ego's route: along its lane, through changes of lane and one turn at a junction; and who is in the way.

Route coordinates: metres along the route, and the d of the main track, as if the main road bent at the turn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drivedistill.world.driving.footprints import Box, overlap
from drivedistill.world.driving.traffic import DRIVE, NEVER, WALK, Agent, Agents, ease, idm
from drivedistill.world.kernel import kernel
from drivedistill.world.scene import EGO_SIZE
from drivedistill.world.track import Floats

FRONT = EGO_SIZE[0] / 2
SIDE = EGO_SIZE[1] / 2
BEARABLE = 2.0
"""How hard it may have to brake, m/s^2, for whoever is ahead where it changes to."""
BY_SQUEEZING = 1.0
"""Mark of somebody who is about to come into the lane, in `in_the_way`."""


class Turn(NamedTuple):
    """A quarter circle at a junction."""

    start: float = NEVER
    """s of its begin"""
    lane: float = 0.0
    """d of the lane from which it is driven"""
    radius: float = 1.0
    sign: float = 1.0
    """1 left, -1 right"""

    @property
    def length(self) -> float:
        """Metres along the arc."""
        return self.radius * float(np.pi) / 2


class Shift(NamedTuple):
    """A change of lane, or with equal d none."""

    origin: float
    """d before"""
    target: float
    """d after"""
    start: float = 0.0
    """metres along the route"""
    length: float = 1.0


@kernel
def shifted(shift: Shift, along: float) -> tuple[float, float]:
    """The d at a place of the route, and its slope there."""
    part, slope = ease((along - shift.start) / shift.length)
    change = shift.target - shift.origin
    return shift.origin + change * part, change * slope / shift.length


@kernel
def to_route(s: float, d: float, turn: Turn) -> tuple[float, float, float]:
    """Route coordinates of a place, and the direction of the route there."""
    straight = (s, d, 0.0)
    if turn.start == NEVER:
        return straight
    off = NEVER
    if s <= turn.start:
        off = abs(d - turn.lane)
    best = straight
    sideways = turn.sign * (d - turn.lane) - turn.radius
    if sideways >= 0.0:
        left = turn.sign * (turn.start + turn.radius - s)
        if abs(left) < off:
            off = abs(left)
            best = (turn.start + turn.radius * np.pi / 2 + sideways, turn.lane + left, turn.sign * np.pi / 2)
    elif s > turn.start:
        angle = np.arctan2(s - turn.start, -sideways)
        distance = np.sqrt((s - turn.start) ** 2 + sideways**2)
        left = turn.sign * (turn.radius - distance)
        best = (turn.start + turn.radius * angle, turn.lane + left, turn.sign * angle)
    return best


@kernel
def from_route(along: float, d: float, turn: Turn) -> tuple[float, float, float]:
    """Road coordinates (s, d) of a place of the route, and the direction of the route there."""
    if along <= turn.start:
        return along, d, 0.0
    angle = min((along - turn.start) / turn.radius, np.pi / 2)
    beyond = max(along - turn.start - turn.radius * np.pi / 2, 0.0)
    radius = turn.radius - turn.sign * (d - turn.lane)
    sideways = turn.radius - radius * np.cos(angle) + beyond * np.sin(angle)
    s = turn.start + radius * np.sin(angle) + beyond * np.cos(angle)
    return s, turn.lane + turn.sign * sideways, turn.sign * angle


@kernel
def _walks_in(a: Agent, d: float, across: float, path: float, gap: float, speed: float, reach: float) -> bool:
    """Does somebody on foot come into the way before the ego has passed?"""
    drift = across * min(a.v * min(gap / max(speed, 2.0) + 0.8, 4.0), a.reach - a.moved)
    close = abs(d - path) < reach
    toward = (path - d) * across > 0.0 or abs(d - path) < SIDE + 0.4
    return close or (toward and min(d, d + drift) - reach < path < max(d, d + drift) + reach)


@kernel
def _meets(a: Agent, turn: Turn, shift: Shift, place: float, speed: float) -> float:
    """Metres to where a vehicle that drives across the route is hit in the next three seconds; `NEVER` if it is not."""
    for quarter in range(13):
        time = 0.25 * quarter
        along = place + speed * time
        s, d, direction = from_route(along, shifted(shift, along)[0], turn)
        ahead = 0.125 * speed  # the room before it grows with the speed, not the room behind it
        s, d = s + np.cos(direction) * ahead, d + np.sin(direction) * ahead
        ego = Box(s, d, direction, FRONT + 0.5 + ahead, SIDE + 0.3)
        s, d = a.s + np.cos(a.yaw) * a.v * time, a.d + np.sin(a.yaw) * a.v * time
        if overlap(ego, Box(s, d, a.yaw, a.half_length, a.half_width)):
            return max(speed * (time - 0.25), 0.0)
    return NEVER


@kernel
def _blocks(
    d: float, other: float, width: float, length: float, shift: Shift, place: float, speed: float, gap: float
) -> bool:
    """Is somebody who stands, or moves along the route at the speed `other`, where the ego is going to be?"""
    reach = width + SIDE + 0.25
    meeting = gap
    if other > 0.0:
        meeting = gap * speed / max(speed - other, 0.2 * speed + 0.1)
    for ahead in (meeting, meeting + 2.0 * length):
        if abs(d - shifted(shift, place + FRONT + ahead)[0]) < reach:
            return True
    return gap < 1.0 + 0.35 * speed and abs(d - shifted(shift, place)[0]) < reach - 0.15


@kernel
def _met(
    a: Agent, turn: Turn, shift: Shift, place: float, speed: float, sight: float, time: float
) -> tuple[float, float, float]:
    """Gap to somebody in the way, `NEVER` if he is not; his speed along the route; `BY_SQUEEZING` or 0."""
    along, d, direction = to_route(a.s, a.d, turn)
    cos, sin = np.cos(a.yaw - direction), np.sin(a.yaw - direction)
    length = abs(cos) * a.half_length + abs(sin) * a.half_width
    gap, other = along - length - place - FRONT, cos * a.v
    if gap < -2.0 or gap > sight:
        return NEVER, other, 0.0
    width = abs(sin) * a.half_length + abs(cos) * a.half_width
    path = shifted(shift, along)[0]
    if a.way == WALK:
        # Somebody whom the front has passed already is left behind, not braked for.
        reach = width + SIDE + (0.9 if a.v > 0.0 and gap > 0.0 else 0.3)
        return (gap if _walks_in(a, d, sin, path, max(gap, 0.0), speed, reach) else NEVER), other, 0.0
    # Whoever comes toward a turn stays on his road, which only crosses the route: he does not follow it head on.
    in_turn = turn.start < along < turn.start + turn.radius * np.pi / 2
    if a.v > 0.3 and (abs(sin) > 0.5 or (in_turn and cos < 0.0)):
        return _meets(a, turn, shift, place, speed), max(other, 0.0), 0.0
    if _blocks(d, other, width, length, shift, place, speed, gap):
        return gap, other, BY_SQUEEZING if a.shift_length > 0.0 and a.moved < a.shift_length else 0.0
    soon = a.way == DRIVE and a.indicator != 0 and time > a.shift_at - 1.0 and gap > 0.5
    if soon and abs(a.shift_to - path) < 1.2 and abs(a.d - path) < 4.5:
        return gap, other, BY_SQUEEZING
    return NEVER, other, 0.0


@kernel
def in_the_way(
    agents: Agents, turn: Turn, shift: Shift, place: float, speed: float, sight: float, time: float, out: Floats
) -> int:
    """Find everybody whom the ego must take into account.

    Args:
        agents: `AGENT`[n]; row 0 is the ego.
        turn: The turn of the route.
        shift: The present change of lane.
        place: Where the middle of the ego is on the route.
        speed: Of the ego.
        sight: How far it looks.
        time: Seconds since the start.
        out: float[n, 4], written: row of the agent, gap in metres, its speed along the route, and `BY_SQUEEZING` or 0.

    Returns:
        How many rows were written.
    """
    found = 0
    for row in range(1, len(agents)):
        gap, other, squeezing = _met(agents[row], turn, shift, place, speed, sight, time)
        if gap < NEVER:
            out[found, 0], out[found, 1], out[found, 2], out[found, 3] = row, gap, other, squeezing
            found += 1
    return found


@kernel
def who_blocks(agents: Agents, turn: Turn, target: float, place: float, speed: float, passed: int) -> int:
    """The row of somebody, other than `passed`, where a change to d = `target` would lead; 0: nobody."""
    for row in range(1, len(agents)):
        if row == passed:
            continue
        a: Agent = agents[row]
        along, d, direction = to_route(a.s, a.d, turn)
        going_there = abs(a.shift_to - target) < 1.0 and a.indicator != 0
        if a.way == WALK or (abs(d - target) > SIDE + a.half_width + 0.5 and not going_there):
            continue
        ahead, other = along - place, np.cos(a.yaw - direction) * a.v
        behind_by = a.half_length + 5.0 + 2.0 * max(0.0, other - speed)
        if ahead <= 0.0:
            blocks = ahead > -behind_by
        elif other < -0.5:
            blocks = ahead < 45.0 + 5.0 * (speed - other)
        else:
            gap = ahead - a.half_length - FRONT
            blocks = gap < 3.0 or idm(speed, agents[0].desired, gap, speed - other, 1.2) < -BEARABLE
        if blocks:
            return row
    return 0
