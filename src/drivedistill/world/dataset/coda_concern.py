"""Why an object of the front picture matters to the ego car."""

from __future__ import annotations

import numpy as np

from drivedistill.world.dataset.coda_advice import CHANGES, goes_along, may_come, plan_shown
from drivedistill.world.dataset.coda_words import ON_ROAD, Strip, called, is_parked, pick, strip
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.whatif import ACCELERATE, KEEP, PRIMITIVES
from drivedistill.world.questions.words import plan
from drivedistill.world.scene import STANDING

RIGHT_IN_FRONT_M = 25.0
BINDS = {
    "light": "is the light that the ego car has to obey",
    "stop sign": "orders the ego car to stop",
    "person": "is in or entering the path of the ego car",
    "animal": "is in or entering the path of the ego car",
    "obstacle": "blocks the lane of the ego car",
    "wrong way": "comes toward the ego car in the same lane",
    "crossing": "crosses in front of the ego car",
    "merging": "moves into the lane of the ego car",
    "yield": "has priority over the ego car",
}
"""Reason -> what it says about the object that the ego car reacts to; `lead` depends on how it moves."""
MOVES = ("wrong way", "crossing", "merging", "yield")
"""Reasons whose words would be wrong of what stands."""
TELLS = {
    "red light": "It tells the ego car to stop.",
    "yellow light": "It tells the ego car to get ready to stop.",
    "green light": "It lets the ego car pass.",
    "stop": "It orders the ego car to stop at the junction.",
    "dirty stop": "It is hard to read, but it orders the ego car to stop at the junction.",
    "speed 30": "It limits the speed of the ego car to 30 km/h.",
    "speed 50": "It limits the speed of the ego car to 50 km/h.",
    "speed 80": "It limits the speed of the ego car to 80 km/h.",
    "works": "It announces road works, so the ego car should slow down and expect a narrow lane.",
    "crosswalk": "It marks a crosswalk, where the ego car must give way to people on foot.",
    "yield": "It tells the ego car to give way.",
    "merge": "It announces vehicles that merge into the lanes of the ego car.",
}
"""Light or sign -> what it tells."""
HARMLESS = {
    "vehicle": ("{It} does not limit the ego car now; a change of its course would.",),
    "cyclist": (
        "A rider may swerve and has no protection, so the ego car should leave room.",
        "The ego car should keep a wide gap to {it}, because a rider has no protection.",
    ),
    "person": (
        "{It} may step onto the road, so the ego car should watch for that.",
        "The ego car should be ready to brake in case {it} enters the road.",
    ),
    "animal": (
        "Animals move unpredictably, so the ego car should be ready to brake.",
        "{It} may start to run at any moment, which the ego car should expect.",
    ),
    "debris": (
        "{It} is an obstacle there, so the ego car should keep clear of {it}.",
        "The ego car should keep away from {it}, and expect others to swerve around {it}.",
    ),
    "works": (
        "{It} marks a place that the ego car must not enter.",
        "{It} warns of an obstruction, so the ego car should be ready to slow down.",
    ),
}
"""Family -> why to mind what is in nobody's way, where its place or motion says no more."""
PARKED = (
    "{It} is parked; a door may open.",
    "{It} is parked, and somebody may step out from behind {it}.",
    "{It} is parked beside the lanes, so the ego car can pass with some room to the side.",
)
STOPPED = ("{It} does not move now, but it may set off.", "{It} does not move and blocks that part of the road.")
ONCOMING = (
    "{It} uses the other side of the road.",
    "{It} passes on the left as long as both stay on their side.",
)
NEXT_LANE = ("{It} is not in the way now, but it could move over.", *HARMLESS["vehicle"])


def concern(frame: Frame, item: Seen, rng: np.random.Generator) -> str:
    """The reason of the ego car's plan, what would happen if it went on, or why to mind the object nevertheless."""
    if not item.is_actor and (frame.cause is not item or not plan_shown(frame)):
        return TELLS.get(item.name if item.kind == "traffic light" else item.kind, "It is out of order.")
    if frame.cause is item and plan_shown(frame):
        text = f"{{It}} {_binds(frame, item)}, so the ego car should {plan(frame)}."
    else:
        text = pick(rng, _conflict(frame, item) or _harmless(frame, item))
    name = called(item)
    return text.format(It=f"{name[0].upper()}{name[1:]}", it=name)


def _binds(frame: Frame, item: Seen) -> str:
    """What the object does that the ego car reacts to."""
    reason = frame.decision.reason if frame.decision else "free"
    if frame.action.lateral in CHANGES:
        return f"{'blocks' if reason == 'obstacle' else 'is ahead in'} the lane that the ego car leaves"
    if reason == "lead":
        if item.moving and frame.action.longitudinal == "accelerate":
            return "gets faster ahead of the ego car"
        if item.distance > RIGHT_IN_FRONT_M:
            return f"{'drives' if item.moving else 'is'} ahead of the ego car in the same lane"
        return f"{'drives' if item.moving else 'is'} right in front of the ego car"
    if may_come(frame, item):
        return "may enter the path of the ego car"
    if reason == "wrong way" and item.moving and strip(frame, item) != "own lane":
        return "comes toward the ego car on the wrong side of the road"
    if (item.moving is False and reason in MOVES) or (
        reason == "obstacle" and strip(frame, item) not in ("own lane", None)
    ):
        return "is in the way of the ego car"
    return BINDS[reason]


def _conflict(frame: Frame, item: Seen) -> tuple[str, ...]:
    """What happens if the ego car goes on, or changes lanes; empty if nothing does, or the ego car does otherwise."""
    outcome = frame.what_if
    if outcome is None:
        return ()
    if outcome.in_path(item.id):
        seconds = float(outcome.touch[KEEP, item.id])
        if np.isfinite(seconds):
            when = f"in about {seconds:.0f} seconds" if seconds > 1.5 else "very soon"
            return (f"Straight on at its present speed, the ego car would reach {{it}} {when}.",
                    f"Without braking or evading, the ego car would hit {{it}} {when}.")  # fmt: skip
        if np.isfinite(outcome.touch[ACCELERATE, item.id]) and frame.action.longitudinal != "accelerate":
            return ("{It} leaves the ego car no room to accelerate.",)
        if goes_along(item):
            return ("{It} is ahead in the path of the ego car, which should keep a safe distance.",)
        does = "crosses" if item.status == "Crossing." else "is in"
        act = "wait" if frame.speed < STANDING and frame.action.longitudinal == "stop" else "be ready to brake"
        return (f"{{It}} {does} the path of the ego car, which should {act}.",)
    if item.family in ("person", "animal"):
        return ()  # that they may come nearer matters more than what a change of lane would do
    changes = [PRIMITIVES[index] for index in outcome.colliding(item.id) or [] if PRIMITIVES[index].lanes]
    if not changes or frame.action.lateral == changes[0].words:
        return ()
    return (f"A {changes[0].words} could lead to a collision with {{it}}.",)


def _harmless(frame: Frame, item: Seen) -> tuple[str, ...]:
    """Why to mind what is in nobody's way."""
    where, actor = strip(frame, item), frame.drive.scene.actors[item.id - 1]
    if is_parked(frame, item):
        return PARKED
    if actor.role == "wrong way" and item.place.d < 0 and item.moving:
        return ("{It} comes on the wrong side of the road, so the ego car should be ready to brake.",)
    if item.status == "Oncoming.":
        return _oncoming(frame, where)
    if item.family == "person":
        return _on_foot(item, where)
    if item.family == "vehicle":
        return _vehicle(frame, item, where)
    if item.family == "debris" and where == "beside":
        return ("{It} lies beside the road and is not in the way.",)
    return HARMLESS[item.family]


def _oncoming(frame: Frame, where: Strip | None) -> tuple[str, ...]:
    """Whoever comes on the other side is passed by whoever keeps the lane."""
    if where != "opposite lanes":
        return ("{It} comes closer, so the ego car should watch {it}.",)
    stays = frame.action.lateral == "go straight"
    return (
        (*ONCOMING, "{It} uses the other side of the road, so the ego car should stay in its lane.")
        if stays
        else ONCOMING[:1]
    )


def _on_foot(item: Seen, where: Strip | None) -> tuple[str, ...]:
    """People on the road, beside it, and those who leave it."""
    if where in ON_ROAD:
        return ("{It} is on the road, so the ego car should be ready to brake.",)
    outward = np.sin(item.place.yaw) * item.place.d > 0
    if item.status == "Crossing." and where is not None and outward:
        return ("{It} walks away from the lanes and needs no more than a glance.",)
    return HARMLESS["person"]


def _vehicle(frame: Frame, item: Seen, where: Strip | None) -> tuple[str, ...]:
    """Vehicles by what they do, and in which lane."""
    if item.status in ("Signalling left.", "Signalling right."):
        return ("Its indicator announces a turn or a change of lane.",)
    if item.status == "Crossing.":
        return ("{It} crosses the road ahead, so the ego car should watch {it}.",)
    if item.moving is False:
        return STOPPED
    if where == "own lane":
        return ("{It} drives ahead in the same lane, so the ego car should keep its distance.",)
    if where in ("lane to the left", "lane to the right") and frame.action.lateral not in CHANGES:
        return NEXT_LANE
    return HARMLESS["vehicle"]
