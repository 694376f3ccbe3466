"""How an actor moves now and what it does next, in words; None where people could disagree or nobody could know."""

from __future__ import annotations

import numpy as np

from drivedistill.world.action import later
from drivedistill.world.catalogue import KINDS
from drivedistill.world.scene import BRAKE_LIGHTS, Drive

STILL, MOVING = 0.2, 0.8
"""m/s: below the first it stands, above the second it moves."""
MOMENT = 3
"""Steps for which it must stand or move."""
LAMP_PIXELS = 100
"""Pixels at 224 x 224 from which brake lights and indicators can be made out."""
TURN_RAD, STEADY_RAD = 0.4, 0.2
"""Change of heading within a second: above the first it turns, below the second it does not."""
SHIFT_M, LANE_KEPT_M = 1.5, 0.5
"""Shift on the road within three seconds: above the first it changes lanes (or crosses), below the second it keeps it."""
AHEAD_S = 3.0


def moves(drive: Drive, actor: int, step: int) -> bool | None:
    """Does it move, now and a moment later? None in between."""
    speeds = drive.speeds[actor, step : step + MOMENT]
    return False if speeds.max() < STILL else True if speeds.min() > MOVING else None


def heading_to_ego(drive: Drive, actor: int, step: int) -> str | None:
    """`same`, `across` or `opposite` to the ego's heading; None in between."""
    degrees = abs(np.degrees(drive.seen_from_ego(actor, step)[2]))
    if degrees < 40:
        return "same"
    if degrees > 140:
        return "opposite"
    return "across" if 60 < degrees < 120 else None


def status(drive: Drive, actor: int, step: int, pixels: float) -> str | None:
    """The moving status: an answer of DriveLM's, or one that says more.

    Args:
        drive: The drive.
        actor: Its id.
        step: When.
        pixels: How large it is seen, scaled to a picture of 224 x 224.
    """
    moving, turned = moves(drive, actor, step), _turned(drive, actor, step)
    if moving is None:
        return None
    if not moving:
        return "Stopped."
    family, heading = KINDS[drive.scene.actors[actor - 1].kind].family, heading_to_ego(drive, actor, step)
    if family in ("person", "animal"):
        return "Crossing." if heading == "across" else "Going ahead." if heading else None
    lamps = _lamps(drive, actor, step, pixels)
    if lamps != "none":
        return lamps
    if abs(turned) > STEADY_RAD:
        return None if abs(turned) < TURN_RAD else "Turn left." if turned > 0 else "Turn right."
    if heading == "opposite":
        ahead = drive.seen_from_ego(actor, step)[0]
        return "Oncoming." if ahead > 2 else "Driving away." if ahead < -2 else None
    return {"same": "Going ahead.", "across": "Crossing."}.get(heading or "")


def _lamps(drive: Drive, actor: int, step: int, pixels: float) -> str | None:
    """What its lamps say; `none` if nothing, None if they cannot be seen well."""
    side, brakes = int(drive.indicators[actor, step]), drive.braking(actor, step)
    from_behind = drive.seen_from_ego(actor, step)[0] > 0 and heading_to_ego(drive, actor, step) == "same"
    if not side and not brakes:
        return "none"
    if pixels < LAMP_PIXELS:
        return None
    if side:
        return "Signalling left." if side > 0 else "Signalling right."
    if heading_to_ego(drive, actor, step) == "opposite":
        return "none"  # nobody looks for the brake lights of oncoming traffic
    return "Braking." if from_behind else None


def _turned(drive: Drive, actor: int, step: int) -> float:
    """Change of heading within the next second, radians."""
    before, after = drive.poses[actor, [step, later(step, 1.0)], 2]
    return float(np.pi - (np.pi - (after - before)) % (2 * np.pi))


def future(drive: Drive, actor: int, step: int, shift: float) -> str | None:
    """What it does within three seconds, if it can be foreseen: it does so already, or its lamps say so.

    Args:
        drive: The drive.
        actor: Its id.
        step: When.
        shift: By how many metres it moves to the left of the road in this time.
    """
    end, moving = later(step, AHEAD_S), moves(drive, actor, step)
    going = np.hypot(*(drive.poses[actor, end, :2] - drive.poses[actor, step, :2]))
    if moving is None:
        return None
    if not moving:
        return "Stationary." if going < 0.3 else None
    if drive.scene.actors[actor - 1].role == "wrong way":
        return "Come toward the ego vehicle in its lane."
    across = _across(drive, actor, step, shift, float(going))
    if across != "none":
        return across
    return _straight(drive, actor, step, end, float(shift))


def _across(drive: Drive, actor: int, step: int, shift: float, going: float) -> str | None:
    """The future of what crosses or turns; `none` if it does neither."""
    headings = drive.poses[actor, [step, later(step, AHEAD_S)], 2]
    turned = float(np.pi - (np.pi - (headings[1] - headings[0])) % (2 * np.pi))
    if drive.scene.actors[actor - 1].role in ("crosser", "crossing") and abs(shift) > 0.8 * going > SHIFT_M:
        return "Cross the road."
    if abs(turned) > 0.35:
        now = _turned(drive, actor, step)
        foreseen = abs(now) > STEADY_RAD or int(drive.indicators[actor, step]) == np.sign(turned)
        return ("Turn left." if turned > 0 else "Turn right.") if abs(turned) > 0.7 and foreseen else None
    return "none"


def _straight(drive: Drive, actor: int, step: int, end: int, shift: float) -> str | None:
    """The future of what follows its lane or pavement."""
    reverse = -1 if drive.scene.actors[actor - 1].role == "oncoming" else 1
    if abs(shift) > LANE_KEPT_M:
        side = np.sign(shift) * reverse
        signals = int(drive.indicators[actor, step]) == side
        if abs(shift) < SHIFT_M or not signals:
            return None
        return "Change to the left lane." if side > 0 else "Change to the right lane."
    if drive.indicators[actor, step]:
        return None
    before, after = drive.speeds[actor, [step, end]]
    if before - after > max(1.5, 0.3 * before):
        return "Slow down." if drive.accelerations[actor, step] < BRAKE_LIGHTS else None
    return "Keep going straight." if abs(after - before) < max(0.5, 0.15 * before) else None
