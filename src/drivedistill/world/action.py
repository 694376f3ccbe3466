"""What the expert does in the next seconds, in words: lateral and longitudinal."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from drivedistill.world.scene import STEP_S, STEPS, Drive

Lateral = Literal["go straight", "turn left", "turn right", "change to the left lane", "change to the right lane"]
Longitudinal = Literal["keep speed", "accelerate", "decelerate", "stop"]

LOOK_AHEAD_S = 3.0
SPEED_LOOK_AHEAD_S = 2.0
TURN_RAD = 0.35
"""A change of heading within three seconds that counts as a turn: a junction, or a bend sharper than most."""
CHANGE_M = 1.1
"""A shift on the road within three seconds that counts as a change of lane."""
SPEED_CHANGE = 1.0
"""m/s within two seconds"""
STOPPED = 0.5
"""m/s"""


BRAKES = -1.0
"""m/s^2: whoever brakes like this neither keeps speed nor accelerates, wherever the two seconds end."""


class Action(NamedTuple):
    """The expert's plan."""

    lateral: Lateral
    longitudinal: Longitudinal


def later(step: int, seconds: float) -> int:
    """The step `seconds` after `step`, at most the last one."""
    return min(step + round(seconds / STEP_S), STEPS - 1)


def action(drive: Drive, step: int) -> Action:
    """The action from the ego's own next seconds.

    Turning is read from the heading over three seconds, a change of lane from the shift on the road while the ego does
    not turn at a junction, speed from the next two seconds.
    """
    end = later(step, LOOK_AHEAD_S)
    headings = drive.poses[0, [step, end], 2]
    turned, shifted = float(headings[1] - headings[0]), float(drive.offsets[end] - drive.offsets[step])
    lateral: Lateral = "go straight"
    if abs(shifted) > CHANGE_M and not np.any(drive.turning[step : end + 1]):
        lateral = "change to the left lane" if shifted > 0 else "change to the right lane"
    elif abs(turned) > TURN_RAD:
        lateral = "turn left" if turned > 0 else "turn right"
    before, after = drive.speeds[0, [step, later(step, SPEED_LOOK_AHEAD_S)]]
    longitudinal: Longitudinal = "keep speed"
    if after < STOPPED:
        longitudinal = "stop"
    elif abs(after - before) > SPEED_CHANGE:
        longitudinal = "accelerate" if after > before else "decelerate"
    return Action(lateral, longitudinal)


def is_clear(drive: Drive, step: int) -> bool:
    """Would a person who watches the next seconds say the same as `action`? Key frames are clear.

    It is not clear whether one brakes or not if the speed dips and comes back, or if it still falls before it rises; nor
    is it clear whether one turns while waiting inside a turn, or while the body straightens after a change of lane.
    """
    lateral, longitudinal = action(drive, step)
    speeds = drive.speeds[0, step : later(step, SPEED_LOOK_AHEAD_S) + 1]
    dips = speeds.min() < min(speeds[0], speeds[-1]) - SPEED_CHANGE
    brakes = drive.accelerations[0, step] < BRAKES and longitudinal in ("keep speed", "accelerate")
    window = slice(step, later(step, LOOK_AHEAD_S) + 1)
    if np.any(drive.turning[window]):
        steers = not drive.turning[step] or lateral != "go straight"
    else:
        steers = lateral not in ("turn left", "turn right") or _bend(drive, window) > TURN_RAD / 2
    return bool(steers and not dips and not brakes)


def _bend(drive: Drive, window: slice) -> float:
    """By how much the main road bends on the ego's way, in radians."""
    track = drive.scene.road.track
    s, _ = track.project(*drive.poses[0, window, :2].T)
    return float(abs(np.subtract(*track.world(s[[0, -1]], 0.0).yaw)))
