"""Who gives way: the rules of right-hand traffic, asked only where the logged drive obeys them.

People and animals on the ego vehicle's way have priority. At a red light and at a stop sign crossing traffic has it, at a
green light and on a priority road the ego vehicle. Whoever enters the ego vehicle's lane from the side gives way to it.
"""

from __future__ import annotations

import numpy as np

from drivedistill.world.action import later
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.whatif import is_past
from drivedistill.world.scene import LANE_M

NEAR_M = 45.0
CONFLICT_M = 6.0
"""From the middle of the junction"""


def gives_way(frame: Frame, item: Seen) -> bool | None:
    """Does the ego vehicle have to give way to an actor? None: there is no conflict, or the rules leave it open."""
    if item.distance > NEAR_M or item.moving is None:
        return None
    actor, end = frame.drive.scene.actors[item.id - 1], later(frame.step, 3.0)
    named = any(decision.actor == item.id for decision in frame.drive.decisions[frame.step : end + 1])
    if item.family in ("person", "animal"):
        return _on_foot(frame, item, named)
    if actor.role == "crossing":
        return _crossing(frame, item, named)
    if actor.role == "oncoming":
        yields = frame.decision is not None and frame.decision.reason == "yield"
        return True if yields and frame.cause is item and item.moving else None
    enters = actor.role == "merging" or (actor.role == "traffic" and _comes_from_the_side(frame, item))
    return False if enters and item.moving and item.place.x > 0 and not named else None


def _on_foot(frame: Frame, item: Seen, named: bool) -> bool | None:
    """A person or animal: yes if the plan lets it go first, no if it stays beside or leaves the way."""
    if item.place.x < 3:
        return None
    drive, step = frame.drive, frame.step
    ego, other = drive.poses[0, step:, :2], drive.poses[item.id, step:, :2]
    ahead = np.array([np.cos(drive.poses[0, step, 2]), np.sin(drive.poses[0, step, 2])])
    beside = np.array([-ahead[1], ahead[0]])
    if frame.cause is item and item.moving:
        crossing = np.abs((other - ego) @ beside) < LANE_M / 2
        goes_first = crossing & ((ego - ego[0]) @ ahead < item.place.x)
        return True if goes_first.any() else None
    if named or not item.moving:
        return None
    stays_away = np.abs((other - ego[0]) @ beside).min() > 0.9 * LANE_M and not np.any(drive.turning[step:])
    return False if stays_away else None


def _crossing(frame: Frame, item: Seen, named: bool) -> bool | None:
    """A vehicle on the cross road, while the ego vehicle is before the junction."""
    drive, junction = frame.drive, frame.drive.scene.road.junction
    if junction is None or is_past(drive, frame.step):
        return None
    centre = drive.scene.road.track.world(junction.s, 0.0)
    soon = drive.poses[item.id, frame.step : later(frame.step, 4.0) + 1, :2] - np.array([centre.x, centre.y]).ravel()
    passes = bool((np.hypot(*soon.T) < CONFLICT_M).any())
    waits = item.moving is False and not passes
    if junction.control == "lights":
        return (
            True
            if frame.light == "red" and item.moving and passes
            else False
            if frame.light == "green" and waits
            else None
        )
    if junction.control == "stop sign":
        sign_seen = any(other.kind in ("stop", "dirty stop") for other in frame.seen)
        return True if sign_seen and item.moving and passes else None
    return False if waits and not named else None


def _comes_from_the_side(frame: Frame, item: Seen) -> bool:
    """It signals toward the ego vehicle's lane from the next one."""
    beside = item.place.d - float(frame.drive.offsets[frame.step])
    signal = int(frame.drive.indicators[item.id, frame.step])
    return 2.3 < abs(beside) < 4.7 and signal == -int(np.sign(beside))
