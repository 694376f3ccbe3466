"""How the others move: vehicles follow the intelligent driver model along their lane, people and animals walk a line.

Everything moves in road coordinates: s metres along the main track, d metres to its left, also on the cross road of a
junction, near which the main track is straight.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.scene import STEP_S
from drivedistill.world.track import SPACING_M, Floats

STILL, DRIVE, WALK = 0, 1, 2
"""The ways of moving."""
NEVER = 1e9
"""A time or a distance that no drive reaches."""


class Script(NamedTuple):
    """Where somebody starts and what he is going to do. Metres, seconds, radians; directions relative to the main road."""

    s: float
    d: float
    heading: float = 0.0
    """Direction of walking, or of the lane: a multiple of a quarter turn."""
    way: int = STILL
    v: float = 0.0
    """First speed."""
    desired: float = 0.0
    """Speed on a free road, or of walking."""
    begins: float = 0.0
    """It stands still before."""
    reach: float = NEVER
    """How far someone walks."""
    brake_at: float = NEVER
    """It brakes hard then,"""
    brake_to: float = 0.0
    """down to this speed,"""
    brake_until: float = NEVER
    """and does not speed up before then."""
    shift_at: float = NEVER
    """It changes lane then,"""
    shift_to: float = 0.0
    """to this d."""
    turn_in: float = NEVER
    """It turns at the junction after so many metres:"""
    turn: int = 0
    """1 left, -1 right,"""
    turn_radius: float = 1.0
    """on a quarter circle."""
    towed_by: int = 0
    """The id of the actor, on the stage before it, that it hangs behind: it moves as that one does."""


AGENT = np.dtype(
    [
        *((name, "i8" if name in ("way", "turn", "towed_by") else "f8") for name in Script._fields),
        ("half_length", "f8"),
        ("half_width", "f8"),
        ("yaw", "f8"),  # direction of the body; differs from the heading while the lane is changed
        ("acceleration", "f8"),
        ("indicator", "i8"),
        ("moved", "f8"),  # metres walked, or driven in a change of lane
        ("shift_from", "f8"),
        ("shift_length", "f8"),
    ]
)
"""A script and the state of the one who follows it. Row 0 is the ego, which only the expert moves."""

Agents: TypeAlias = NDArray[Any]
"""`AGENT`[n]"""
Agent: TypeAlias = Any
"""One row of it; compiled code reads its fields as attributes."""
INDICATE_S = 1.8
"""They indicate for so long before they change lane."""
ALONGSIDE_M = 1.5
"""Nobody changes lane while somebody is beside him, or has less than this between their ends."""
SEEN_M = 90.0
"""How far they look."""
TURN_ACCELERATION = 2.6
"""Lateral, in a turn at a junction, m/s^2."""


@kernel
def idm(v: float, desired: float, gap: float, closing: float, headway: float = 1.4, standstill: float = 2.5) -> float:
    """Acceleration of the intelligent driver model in m/s^2, `gap` metres behind something it closes in on."""
    # 1.6 m/s^2 is the acceleration of a standing start, 2.2 m/s^2 comfortable braking; 3.752 = 2 sqrt(1.6 * 2.2).
    wanted = standstill + max(0.0, v * headway + v * closing / 3.752)
    free = 1.0 - (v / max(desired, 0.1)) ** 4
    return min(2.0, max(-7.5, 1.6 * (free - (wanted / max(gap, 0.3)) ** 2)))


@kernel
def bend_at(s: float, bends_start: float, bends: Floats) -> float:
    """Curvature of the main track, from its values every `SPACING_M` metres."""
    index = int((s - bends_start) / SPACING_M)
    return bends[index] if 0 <= index < len(bends) else 0.0


@kernel
def _leader(agents: Agents, me: int) -> tuple[float, float]:
    """Gap to what is ahead in the lane, or is about to walk into it, and its speed along the lane."""
    a: Agent = agents[me]
    cos, sin = np.cos(a.heading), np.sin(a.heading)
    shifting = (a.shift_to - a.d) * cos if a.shift_length > 0.0 else 0.0
    nearest, speed = 1e3, 0.0
    for other in range(len(agents)):
        b: Agent = agents[other]
        ahead = cos * (b.s - a.s) + sin * (b.d - a.d)
        if other == me or ahead <= 0.0 or ahead > SEEN_M:
            continue
        left = cos * (b.d - a.d) - sin * (b.s - a.s)
        along, across = np.cos(b.yaw - a.heading), np.sin(b.yaw - a.heading)
        reach = a.half_width + abs(across) * b.half_length + abs(along) * b.half_width
        low, high = min(left, left - shifting), max(left, left - shifting)
        if b.way == WALK:
            drift = across * min(b.v * min(2.5, ahead / max(a.v, 2.0) + 0.8), b.reach - b.moved)
            low, high, reach = min(low, low + drift), max(high, high + drift), reach + 0.4
        if low > reach or high < -reach:
            continue
        gap = ahead - a.half_length - abs(along) * b.half_length - abs(across) * b.half_width
        if gap < nearest:
            # A driver who meets somebody head on counts on both of them braking.
            nearest, speed = gap, along * b.v if along > 0.0 else 0.5 * along * b.v
    return nearest, speed


@kernel
def _to_line(agent: Agent, lines: Floats) -> tuple[float, int]:
    """Metres from the front to the stop line of the agent's direction, and the axis of that direction."""
    quarter = round(agent.heading / (np.pi / 2)) % 4
    place = agent.s if quarter % 2 == 0 else agent.d
    sign = 1.0 if quarter < 2 else -1.0
    return sign * (lines[quarter] - place) - agent.half_length, quarter % 2


@kernel
def _alongside(agents: Agents, me: int) -> bool:
    """Is somebody beside the agent in the lane that it wants to change to?"""
    a: Agent = agents[me]
    for other in range(len(agents)):
        b: Agent = agents[other]
        beside = abs(b.s - a.s) < a.half_length + b.half_length + ALONGSIDE_M
        if other != me and beside and abs(b.d - a.shift_to) < a.half_width + b.half_width + 0.2:
            return True
    return False


@kernel
def decide(agents: Agents, time: float, closed: NDArray[np.int8], lines: Floats) -> None:
    """Set acceleration and indicator of everybody but the ego.

    Args:
        agents: `AGENT`[n].
        time: Seconds since the start.
        closed: int8[2] for the main and the cross road: 0 open, 1 yellow, 2 red.
        lines: float[4]: where the stop lines of those who head along s, d, -s and -d lie.
    """
    for me in range(1, len(agents)):
        a: Agent = agents[me]
        a.acceleration, a.indicator = 0.0, 0
        if a.way != DRIVE or time < a.begins:
            continue
        if a.towed_by > 0:
            tractor: Agent = agents[a.towed_by]
            a.acceleration, a.indicator = tractor.acceleration, tractor.indicator
            continue
        gap, speed = _leader(agents, me)
        desired = a.desired
        if a.turn != 0:
            slow = TURN_ACCELERATION * a.turn_radius
            desired = min(desired, np.sqrt(slow + 3.0 * max(a.turn_in, 0.0)))
            a.indicator = a.turn if a.turn_in < 35.0 else 0
        acceleration = idm(a.v, desired, gap, a.v - speed, 1.0)
        line, axis = _to_line(a, lines)
        if closed[axis] > 0 and line > -1.0 and a.turn_in >= 0.0:
            bearable = 3.0 if closed[axis] == 1 else 7.0
            if a.v * a.v < 2.0 * bearable * max(line, 0.1) or a.v < 2.0:
                acceleration = min(acceleration, idm(a.v, desired, line + 1.5, a.v))
        if a.brake_at < time < a.brake_until:
            acceleration = min(acceleration, -4.2 if a.v > a.brake_to else 0.0)
        if time > a.shift_at - INDICATE_S and (a.shift_length == 0.0 or a.moved < a.shift_length):
            a.indicator = 1 if (a.shift_to - a.d) * np.cos(a.heading) > 0.0 else -1
        if time >= a.shift_at and a.shift_length == 0.0 and not _alongside(agents, me):
            a.shift_from, a.shift_length, a.moved = a.d, max(12.0, 3.0 * a.v), 0.0
        a.acceleration = max(acceleration, -a.v / STEP_S)


@kernel
def _turn(agent: Agent) -> None:
    """Turn at the junction: a quarter circle after `turn_in` metres."""
    before = min(max(-agent.turn_in / agent.turn_radius, 0.0), np.pi / 2)
    agent.turn_in -= agent.v * STEP_S
    after = min(max(-agent.turn_in / agent.turn_radius, 0.0), np.pi / 2)
    agent.heading += agent.turn * (after - before)
    if after == np.pi / 2:
        agent.turn = 0


@kernel
def ease(part: float) -> tuple[float, float]:
    """How far a change of lane has come after `part` of its way, and how steep it is there."""
    part = min(max(part, 0.0), 1.0)
    return part * part * (3.0 - 2.0 * part), 6.0 * part * (1.0 - part)


@kernel
def advance(agents: Agents, time: float, bends_start: float, bends: Floats) -> None:
    """Move everybody but the ego by one step."""
    for me in range(1, len(agents)):
        a: Agent = agents[me]
        if a.way == STILL:
            continue
        if a.way == WALK:
            a.v = a.desired if time >= a.begins and a.moved < a.reach else 0.0
        else:
            a.v = max(0.0, a.v + a.acceleration * STEP_S)
        step = a.v * STEP_S
        a.moved += step
        if a.turn != 0:
            _turn(a)
        a.yaw = a.heading
        if a.shift_length > 0.0:
            part, slope = ease(a.moved / a.shift_length)
            change = a.shift_to - a.shift_from
            a.d = a.shift_from + change * part
            a.yaw += np.arctan(change * slope / a.shift_length) * np.cos(a.heading)
        else:
            a.d += step * np.sin(a.yaw)
        a.s += step * np.cos(a.yaw) / (1.0 - a.d * bend_at(a.s, bends_start, bends))
