"""What the ego car should do, and why, as far as the front picture shows the reason."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drivedistill.world.dataset.coda_words import CAMERA, pick, strip
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.planning import against_the_light
from drivedistill.world.questions.whatif import KEEP, PRIMITIVES, is_past, is_turning
from drivedistill.world.questions.words import because, plan
from drivedistill.world.scene import EGO_SIZE, STANDING, Sign

BRAKE_GENTLY = next(index for index, item in enumerate(PRIMITIVES) if item.words == "brake gently")
CHANGES = {item.words: index for index, item in enumerate(PRIMITIVES) if item.lanes}
"""A change of lane in words -> its primitive"""
ALONG = 0.7
"""Cosine of the angle between two directions that count as the same"""
LEADER_M, AWARE_M = 60.0, 30.0
"""How far away a leader, and who may come onto the road, are reasons to adapt"""
JUNCTION_M = 30.0
"""From here on, a junction ahead is a reason to slow down."""
SIGN_M = 60.0
CONDITIONS = {
    "rain": ("keep a larger distance and brake early", "the road is wet"),
    "fog": ("drive no faster than it can stop within sight, with its lights on", "fog hides what is far away"),
    "snow": ("avoid sudden steering and braking and keep a larger distance", "the road is slippery"),
    "night": ("watch for people and obstacles without lights", "it is dark"),
}
"""Weather or light -> what it asks for, and why"""
CARE = (
    "It should keep a safe distance and stay ready to brake.",
    "All the time it should keep enough distance to stop.",
    "It should stay attentive and leave itself room to react.",
)
GENERAL = (
    "The ego car should drive with care and adapt its speed to what it can see.",
    "The ego car should go on carefully and look out for whatever comes into view.",
    "The ego car should keep to a moderate speed and watch how the scene develops.",
)
"""Where nothing follows from the picture."""


class Advice(NamedTuple):
    """What to do, and why."""

    act: str
    """Completes "the ego car should"."""
    reason: str
    """A clause."""
    item: Seen | None = None
    """Whom the reason names."""


def plan_shown(frame: Frame) -> bool:
    """Can the plan be told: does the front picture show its reason, and nothing that speaks against it?"""
    cause, act = frame.cause, frame.action
    if not frame.reason_shown or (cause is not None and cause.camera != CAMERA) or against_the_light(frame):
        return False
    if cause is None and in_the_way(frame):
        return False  # it says that nothing hinders
    if act.longitudinal not in ("keep speed", "accelerate") or act.lateral in CHANGES:
        return True
    if act.longitudinal == "accelerate" and cause is not None and not cause.moving:
        return False  # that it will move off is not to be seen
    return not any(_reached(frame, item) for item in in_the_way(frame))


def may_come(frame: Frame, item: Seen) -> bool:
    """A person or animal that stands, but not in the ego car's lane."""
    return item.family in ("person", "animal") and item.moving is False and strip(frame, item) != "own lane"


def in_the_way(frame: Frame) -> list[Seen]:
    """Actors in the front picture that are in the ego car's path, the first one that it would reach first."""
    outcome = frame.what_if
    if outcome is None:
        return []
    found = [item for item in frame.seen if item.is_actor and item.camera == CAMERA and outcome.in_path(item.id)]
    return sorted(found, key=lambda item: (float(outcome.touch[KEEP, item.id]), item.distance, item.id))


def _reached(frame: Frame, item: Seen) -> bool:
    return frame.what_if is not None and bool(np.isfinite(frame.what_if.touch[KEEP, item.id]))


def advice(frame: Frame) -> Advice | None:
    """The plan; otherwise what the picture asks for: whoever is in the way, lights, signs, the junction, bad weather."""
    if plan_shown(frame):
        return Advice(plan(frame), _because(frame), frame.cause)
    found = _for_somebody(frame) or _for_light(frame) or _for_sign(frame) or _for_junction(frame)
    return found or _for_neighbour(frame) or for_conditions(frame) or _for_free_path(frame)


def _because(frame: Frame) -> str:
    """The reason of the plan."""
    cause, reason = frame.cause, frame.decision.reason if frame.decision else "free"
    if cause is not None and reason == "wrong way" and strip(frame, cause) != "own lane":
        return f"the {cause.name} comes toward it on the wrong side of the road"
    if cause is not None and may_come(frame, cause):
        return f"the {cause.name} may enter its path"
    if cause is None or reason != "lead":
        return because(frame)
    if frame.action.lateral in CHANGES:
        return f"the {cause.name} ahead is in its lane"
    if frame.action.longitudinal == "accelerate":
        return f"the {cause.name} ahead gets faster"
    return because(frame) if cause.moving else f"the {cause.name} ahead is in its way"


def _for_somebody(frame: Frame) -> Advice | None:
    """The safe action where somebody is in the way."""
    threats = in_the_way(frame)
    if not threats:
        return None
    item = threats[0]
    does = {"Crossing.": "crosses its path", "Oncoming.": "comes toward it in its path"}.get(
        item.status or "", "is in its path"
    )
    return Advice(_safe(frame, item), f"the {item.name} {does}", item)


def _safe(frame: Frame, item: Seen) -> str:
    """What avoids somebody in the way; the same as the log does, where that is one of several."""
    outcome, act = frame.what_if, frame.action
    change = CHANGES.get(act.lateral)
    if outcome is not None and change is not None and not np.isfinite(outcome.touch[change, item.id]):
        return plan(frame)
    if frame.speed < STANDING:
        return "remain stopped" if act.longitudinal == "stop" else "move off with care and be ready to stop again"
    if _reached(frame, item):
        hard = outcome is not None and np.isfinite(outcome.touch[BRAKE_GENTLY, item.id])
        return "brake hard" if hard else "slow down and be ready to stop"
    if act.longitudinal in ("decelerate", "stop"):
        return "slow down and be ready to stop"
    return "keep a safe distance" if goes_along(item) else "be ready to brake"


def goes_along(item: Seen) -> bool:
    """Does it move in the ego car's direction?"""
    return bool(item.moving) and bool(np.cos(item.place.yaw) > ALONG)


def _for_light(frame: Frame) -> Advice | None:
    """A red or yellow light before the stop line."""
    shown = [item for item in frame.seen if item.kind == "traffic light" and item.camera == CAMERA]
    if not shown or frame.light not in ("red", "yellow") or is_past(frame.drive, frame.step):
        return None
    act = "remain stopped" if frame.speed < STANDING else "brake" if frame.light == "red" else "get ready to stop"
    return Advice(act, f"the traffic light is {frame.light}", shown[0])


def _for_sign(frame: Frame) -> Advice | None:
    """A sign of which something shows, but which is hard to read: dirty, or behind a bush."""
    hidden = [
        sign
        for sign in frame.drive.scene.signs
        if (sign.hidden_by_bush or sign.kind == "dirty stop")
        and (sign.id in frame.by_id or sign.id in frame.faint)
        and _ahead(frame, sign)
    ]
    if not hidden:
        return None
    why = "is hidden behind leaves" if hidden[0].hidden_by_bush else "is too dirty to be read easily"
    act = "remain stopped until it knows the rule" if frame.speed < STANDING else "slow down and be ready to stop"
    return Advice(act, f"a traffic sign ahead {why}", frame.by_id.get(hidden[0].id))


def _ahead(frame: Frame, sign: Sign) -> bool:
    x, y, yaw = frame.drive.poses[0, frame.step]
    ahead = float(np.cos(yaw) * (sign.x - x) + np.sin(yaw) * (sign.y - y))
    aside = float(np.cos(yaw) * (sign.y - y) - np.sin(yaw) * (sign.x - x))
    return abs(aside) < 0.6 * ahead < 0.6 * SIGN_M


def _for_junction(frame: Frame) -> Advice | None:
    """The crossing road where the ego car has to wait."""
    drive, road = frame.drive, frame.drive.scene.road
    waits = frame.action.longitudinal in ("decelerate", "stop")
    if road.junction is None or road.stop_line is None or is_past(drive, frame.step) or not waits:
        return None
    front = float(road.track.project(*drive.poses[0, frame.step, :2])[0]) + EGO_SIZE[0] / 2
    if road.junction.control != "stop sign" or road.stop_line - front > JUNCTION_M:
        return None
    if frame.speed < 1.0:
        return Advice("wait until the crossing road is free", "it stands at a junction")
    return Advice("slow down and be ready to give way", "it comes to a junction")


def _for_neighbour(frame: Frame) -> Advice | None:
    """The nearest of whom one adapts to before anything happens: a leader, people, animals and obstacles at the road."""
    front = [item for item in frame.seen if item.is_actor and item.camera == CAMERA]
    for item in sorted(front, key=lambda item: (item.distance, item.id)):
        where = strip(frame, item)
        if where == "own lane" and goes_along(item) and item.distance < LEADER_M:
            return Advice("keep a safe distance", f"the {item.name} is ahead in its lane", item)
        if item.distance > AWARE_M or where in (None, "beside"):
            continue
        if item.family in ("person", "animal"):
            may = "may step" if item.family == "person" else "may run"
            return Advice("be ready to brake", f"the {item.name} {may} into its way", item)
        if item.family in ("debris", "works"):
            return Advice("pass with care", f"the {item.name} leaves less room on the road", item)
    return None


def for_conditions(frame: Frame) -> Advice | None:
    """What weather and light ask for."""
    conditions = frame.drive.scene.conditions
    found = CONDITIONS.get(conditions.weather) or CONDITIONS.get(conditions.light)
    return Advice(*found) if found else None


def _for_free_path(frame: Frame) -> Advice | None:
    """Nothing that shows is in the way, nor close to it."""
    front = [item for item in frame.seen if item.is_actor and item.camera == CAMERA]
    if frame.what_if is None or is_turning(frame.drive, frame.step):
        return None
    if any(frame.what_if.in_path(item.id) is not False for item in front):
        return None
    return Advice("go on with care", "nothing that can be made out is in its path")


def care(frame: Frame, given: Advice | None, rng: np.random.Generator) -> str:
    """A last sentence: what weather and light ask for, unless that was the advice."""
    found = for_conditions(frame)
    if found is None or found == given:
        return pick(rng, CARE)
    return f"Because {found.reason}, it should {found.act}."
