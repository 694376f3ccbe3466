"""Everything that questions about one key frame are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivedistill.world.action import LOOK_AHEAD_S, SPEED_LOOK_AHEAD_S, Action, action, later
from drivedistill.world.questions.masks import Patch, measure
from drivedistill.world.questions.observe import REFERENCE, Seen, observe
from drivedistill.world.questions.whatif import WhatIf, what_if
from drivedistill.world.rig import LEFT_TO_RIGHT
from drivedistill.world.scene import LANE_M, STANDING, Decision, Drive, Signal
from drivedistill.world.views import Views

KEY_OBJECTS = 6
KEY_DISTANCE_M = 75.0
NO_LIGHT_M = 90.0
"""A traffic light that is less far ahead may be there although it cannot be made out."""
SPECK = 8
"""Pixels at 224 x 224: less than this nobody notices."""
SIDEWAYS_M = 1e-3
"""Who moves more than this across the road within a step is changing lanes."""
CATEGORIES = {
    "vehicle": "Vehicle",
    "cyclist": "Vehicle",
    "person": "Pedestrian",
    "animal": "Animal",
    "debris": "Obstacle",
    "works": "Obstacle",
    "traffic element": "Traffic element",
}
"""Family -> `Category` in DriveLM's files."""


@dataclass(frozen=True)
class Frame:
    """One key frame: the drive, what can be seen, and what the ego vehicle does and why."""

    drive: Drive
    step: int
    size: tuple[int, int]
    """Width and height of the pictures"""
    seen: tuple[Seen, ...]
    """By id"""
    faint: frozenset[int]
    """Instances of which something shows, but not enough to be asked about: no answer may depend on them."""
    key: tuple[Seen, ...]
    """Objects that questions name, from left to right"""
    tags: dict[int, str]
    """Id of a key object -> how it is written: `<c1,CAM_FRONT,41.5,60.0>`"""
    action: Action
    decision: Decision | None
    """Why; None: not told by one reason."""
    light: Signal | None
    """The ego's traffic light, if it can be seen."""
    no_light: bool
    """There surely is none."""
    what_if: WhatIf | None
    """None: the ego vehicle is between lanes."""
    by_id: dict[int, Seen] = field(repr=False)

    @property
    def speed(self) -> float:
        """Of the ego vehicle, m/s."""
        return float(self.drive.speeds[0, self.step])

    @property
    def cause(self) -> Seen | None:
        """The actor, light or sign that the ego vehicle reacts to, if there is one and it can be seen."""
        if self.decision is None:
            return None
        if self.decision.actor:
            return self.by_id.get(self.decision.actor)
        wanted = {"light": ("traffic light",), "stop sign": ("stop", "dirty stop")}.get(self.decision.reason, ())
        found = [item for item in self.key if item.kind in wanted]
        return found[0] if found else None

    @property
    def reason_shown(self) -> bool:
        """Can whoever looks at the pictures know the reason?"""
        if self.decision is None:
            return False
        unseen_is_fine = self.decision.reason in ("free", "turn", "curve")
        return self.cause is not None or (unseen_is_fine and not self.decision.actor)


def look(drive: Drive, step: int, views: Views) -> Frame:
    """Gather the facts of one key frame.

    Args:
        drive: The drive.
        step: When.
        views: What the cameras show.
    """
    patches = measure(views)
    seen = observe(drive, step, views, patches)
    by_id = {item.id: item for item in seen}
    plan = action(drive, step)
    decision = binding(drive, step, plan)
    key = _key_objects(drive, seen, decision)
    lights = [item for item in seen if item.kind == "traffic light"]
    return Frame(
        drive=drive,
        step=step,
        size=views.size,
        seen=tuple(seen),
        faint=frozenset(instance for instance in patches if instance not in by_id and _shows(patches[instance], views)),
        key=key,
        tags={item.id: _tag(number, item) for number, item in enumerate(key, start=1)},
        action=plan,
        decision=decision,
        light=drive.signals[step] if lights else None,
        no_light=not lights and _no_light(drive, step, set(patches)),
        what_if=what_if(drive, step),
        by_id=by_id,
    )


def _shows(patch: Mapping[str, Patch], views: Views) -> bool:
    """Does more than a speck of it show somewhere?"""
    width, height = views.size
    return max(item.pixels for item in patch.values()) * REFERENCE / (width * height) >= SPECK


def key_object_infos(frame: Frame) -> dict[str, Any]:
    """The key objects as in DriveLM's files, with a few facts of the world more."""
    return {
        frame.tags[item.id]: {
            "Category": CATEGORIES[item.family],
            "Status": None if item.moving is None else "Moving" if item.moving else "Stationary",
            "Visual_description": f"{item.name[0].upper()}{item.name[1:]}.",
            "2d_bbox": list(item.box),
            "id": item.id,
            "ego_xy": [round(item.place.x, 2), round(item.place.y, 2)],
            "distance": round(item.distance, 2),
            "speed": round(item.speed, 2),
            "pixels": item.pixels[item.camera],
        }
        for item in frame.key
    }


def binding(drive: Drive, step: int, plan: Action) -> Decision | None:
    """The reason for what the ego vehicle does next; None where the log gives none that fits.

    For braking and stopping it is what bound in the hardest moment of the next two seconds. Whoever keeps the speed or
    accelerates does so because nothing hinders, or because of a leader, a turn or a bend. Whoever changes lanes evades
    what is ahead.
    """
    end = later(step, SPEED_LOOK_AHEAD_S)
    if plan.lateral.startswith("change"):
        return _evaded(drive, step, end)
    if plan.longitudinal in ("decelerate", "stop"):
        stands = drive.speeds[0, step] < STANDING
        hardest = step if stands else step + int(np.argmin(drive.accelerations[0, step : end + 1]))
        decision = drive.decisions[hardest]
        return None if decision.reason == "free" else decision
    decision = drive.decisions[step]
    if plan.longitudinal == "keep speed":
        return decision if decision.reason in ("free", "lead", "turn", "curve") else None
    if all(later_on.reason == "free" for later_on in drive.decisions[step : end + 1]):
        return decision
    if decision.reason == "lead" and drive.speeds[decision.actor, end] > drive.speeds[decision.actor, step] + 1.0:
        return decision
    return decision if decision.reason == "turn" else None


def _evaded(drive: Drive, step: int, end: int) -> Decision | None:
    """The first decision around a change of lane that names something ahead in the lane that is left."""
    left, reached = lane_change(drive, step)
    for decision in drive.decisions[max(0, step - 10) : end + 1]:
        if decision.actor and decision.reason in ("lead", "obstacle", "wrong way", "animal", "person"):
            d = float(drive.scene.road.track.project(*drive.poses[decision.actor, step, :2])[1])
            ahead = drive.seen_from_ego(decision.actor, step)[0] > 0
            if ahead and abs(d - left) < LANE_M / 2 and abs(d - left) < abs(d - reached):
                return decision
    return None


def lane_change(drive: Drive, step: int) -> tuple[float, float]:
    """The d of the ego vehicle before and after the change of lane that is under way at `step`, or begins after it."""
    moves = np.diff(drive.offsets)
    side = np.sign(drive.offsets[later(step, LOOK_AHEAD_S)] - drive.offsets[step])
    shifts = moves * side > SIDEWAYS_M
    before = np.flatnonzero(~shifts[:step])
    start = step if not shifts[step] else int(before[-1]) + 1 if len(before) else 0
    begin = start + int(np.argmax(shifts[start:]))
    rest = np.flatnonzero(~shifts[begin:])
    finish = begin + int(rest[0]) if len(rest) else len(moves)
    return float(drive.offsets[start]), float(drive.offsets[finish])


def _key_objects(drive: Drive, seen: list[Seen], decision: Decision | None) -> tuple[Seen, ...]:
    """The most relevant objects, at most one light and one sign among them, in the order of their numbers.

    They are numbered around the car from the left to the back: numbers by relevance would give answers away, drawn ones
    could not be learnt.
    """
    relevance = {item.id: _relevance(drive, item, decision) for item in seen if item.distance < KEY_DISTANCE_M}
    chosen: list[Seen] = []
    for item in sorted(
        (item for item in seen if item.id in relevance), key=lambda item: (-relevance[item.id], item.id)
    ):
        double = not item.is_actor and any(
            (other.kind == "traffic light") == (item.kind == "traffic light") for other in chosen if not other.is_actor
        )
        if not double and len(chosen) < KEY_OBJECTS:
            chosen.append(item)
    return tuple(sorted(chosen, key=lambda item: (LEFT_TO_RIGHT.index(item.camera), item.middle[0], item.id)))


def _relevance(drive: Drive, item: Seen, decision: Decision | None) -> float:
    """Metres of closeness, and bonuses in metres."""
    near = -item.distance + (25 if item.place.x > 0 else -10) + (15 if abs(item.place.y) < 5 else 0)
    if not item.is_actor:
        reasons = ("light",) if item.kind == "traffic light" else ("stop sign",)
        return near + (60 if decision is not None and decision.reason in reasons else 0)
    actor = drive.scene.actors[item.id - 1]
    idle = actor.role in ("parked", "walking", "bystander") and not actor.hazard
    return (
        near
        + (60 if decision is not None and decision.actor == item.id else 0)
        + (45 if actor.hazard else 0)
        + (10 if item.family in ("person", "animal") else 0)
        - (35 if idle else 0)
    )


def _tag(number: int, item: Seen) -> str:
    x, y = item.middle
    return f"<c{number},{item.camera},{x:.1f},{y:.1f}>"


def _no_light(drive: Drive, step: int, visible: set[int]) -> bool:
    """No head is ahead within 90 m, and none shows a pixel."""
    x, y, yaw = drive.poses[0, step]
    ahead = [np.cos(yaw) * (head.x - x) + np.sin(yaw) * (head.y - y) for head in drive.scene.heads]
    return not any(0 < far < NO_LIGHT_M for far in ahead) and not any(head.id in visible for head in drive.scene.heads)
