"""Objects of the front picture in words: what they look like, where they are, what they do, why they matter.

All distances are metres from the front of the ego car.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drivedistill.world.catalogue import with_article
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.planning import against_the_light
from drivedistill.world.questions.whatif import KEEP, PRIMITIVES, is_turning
from drivedistill.world.questions.words import plan, sentence
from drivedistill.world.scene import EGO_SIZE, LANE_M

WEATHER = {
    "clear": "The weather is clear",
    "cloudy": "The sky is overcast",
    "rain": "It is raining and the road is wet",
    "fog": "There is fog, which hides what is far away",
    "snow": "It is snowing and the road is covered with snow",
}
LIGHT = {"day": "by day", "dusk": "at dusk", "night": "at night"}
ROAD = {
    "urban": "a city street",
    "residential": "a residential street",
    "rural": "a country road",
    "highway": "a motorway",
}
CARE = {
    "rain": "Because the road is wet, it should keep a larger distance and brake early.",
    "fog": "Because of the fog, it should drive no faster than it can stop within sight, with its lights on.",
    "snow": "Because the road is slippery, it should avoid sudden steering and braking and keep a larger distance.",
    "night": "Since it is dark, it should watch the edges of the road for people without lights.",
    "": "It should keep a safe distance and stay ready to brake.",
}
"""Weather or light -> what they ask for."""
NOTHING = (
    "No vehicles, people, traffic signs or obstacles can be made out ahead, so nothing in view limits the ego car; it "
    "should still watch the road for anything that appears."
)
LAMPS = {
    "Braking.": " with lit brake lights",
    "Signalling left.": " with its left indicator on",
    "Signalling right.": " with its right indicator on",
}
BINDS = {
    "lead": "it drives right in front of the ego car",
    "light": "it is the light that the ego car has to obey",
    "stop sign": "it orders the ego car to stop",
    "person": "this person is in or entering the path of the ego car",
    "animal": "it is in or entering the path of the ego car",
    "obstacle": "it blocks the lane of the ego car",
    "wrong way": "it comes toward the ego car in its own lane",
    "crossing": "it crosses in front of the ego car",
    "merging": "it moves into the lane of the ego car",
    "yield": "it has priority over the ego car",
}
"""Reason -> what it says about the object that the ego car reacts to."""
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
    "vehicle": (
        "It does not limit the ego car now; a change of its course would.",
        "It is not in the way now, but it could move over.",
    ),
    "cyclist": (
        "A rider may swerve and has no protection, so the ego car should leave room.",
        "The ego car should pass it with a wide gap, because a rider has no protection.",
    ),
    "person": (
        "People may step onto the road, so the ego car should watch this one.",
        "The ego car should be ready to brake in case this person enters the road.",
    ),
    "animal": (
        "Animals move unpredictably, so the ego car should be ready to brake.",
        "It may run into the road at any moment, which the ego car should expect.",
    ),
    "debris": (
        "It narrows the road, so the ego car should keep clear of it.",
        "The ego car should keep away from it, and expect others to swerve around it.",
    ),
    "works": (
        "It marks a place that the ego car must not enter.",
        "It warns of an obstruction, so the ego car should be ready to slow down.",
    ),
    "oncoming": (
        "It uses the other side of the road, so the ego car should stay in its lane.",
        "It passes on the left as long as the ego car stays in its lane.",
    ),
}
"""Family -> why to mind what is in nobody's way."""


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def conditions(frame: Frame, rng: np.random.Generator) -> str:
    """Road, light and weather."""
    scene = frame.drive.scene
    road, light = ROAD[scene.road.type], LIGHT[scene.conditions.light]
    forms = (
        f"the ego car drives on {road} {light}",
        f"the picture shows {road} {light}",
        f"{light}, the ego car is on {road}",
    )
    return f"{sentence(_pick(rng, forms))} {WEATHER[scene.conditions.weather]}."


def description(frame: Frame, item: Seen, rng: np.random.Generator) -> str:
    """What it looks like, where it is, and what it does."""
    if item.kind == "traffic light":
        who = f"a traffic light showing {item.name.removesuffix(' light')}"
    else:
        who = with_article(item.name) + LAMPS.get(item.status or "", "")
    where, does = place(frame, item), _motion(item)
    return sentence(_pick(rng, (f"there is {who} {where}{does}", f"{who} is {where}{does}")))


def place(frame: Frame, item: Seen) -> str:
    """Distance, and where on the road; only the side where the ego car turns or the road gives no better word."""
    metres = max(1.0, item.distance - EGO_SIZE[0] / 2)
    metres = 5 * round(metres / 5) if metres > 12 else round(metres)
    near = f"about {metres:.0f} {'meter' if metres == 1 else 'meters'}"
    road, d, side = frame.drive.scene.road, item.place.d, "left" if item.place.y > 0 else "right"
    aside = f"{near} ahead on the {side}" if abs(item.place.y) > 0.1 * item.place.x else f"straight ahead at {near}"
    if road.junction is not None and abs(item.place.s - road.junction.s) < 2 * LANE_M:
        return f"{aside}, at the junction"
    if is_turning(frame.drive, frame.step) or not item.is_actor:
        return aside
    beside = d - float(frame.drive.offsets[frame.step])
    if abs(beside) < LANE_M / 2:
        return f"{near} ahead in the lane of the ego car"
    if road.right < d < 0:
        return f"{near} ahead in the lane to the {'left' if beside > 0 else 'right'}"
    if 0 <= d < road.left:
        return f"{near} ahead in the opposite lanes"
    strip = road.right - road.margin < d < road.left + road.margin
    return f"{near} ahead {'at' if strip else 'beside'} the {'right' if d < 0 else 'left'} edge of the road"


def _motion(item: Seen) -> str:
    """A clause; empty where it cannot be told, or goes without saying."""
    if item.family in ("debris", "works", "traffic element"):
        return ""
    walks = item.family in ("person", "animal")
    return {
        "Stopped.": ", standing still",
        "Crossing.": f", crossing from {'right to left' if item.place.yaw > 0 else 'left to right'}",
        "Oncoming.": ", coming toward the ego car",
        "Turn left.": ", turning left",
        "Turn right.": ", turning right",
        "Going ahead.": ", walking along the road" if walks else ", driving in the same direction",
    }.get(item.status or "", "")


def concern(frame: Frame, item: Seen, rng: np.random.Generator) -> str:
    """Why it matters to the ego car: the reason of its plan, in its way, or why to mind it nevertheless."""
    if frame.cause is item and frame.decision is not None and advised(frame, item.camera):
        return f"{sentence(BINDS[frame.decision.reason])[:-1]}, so the ego car should {plan(frame)}."
    if not item.is_actor:
        return TELLS.get(item.name if item.kind == "traffic light" else item.kind, "It is out of order.")
    return _conflict(frame, item, rng) or _pick(
        rng, HARMLESS["oncoming" if item.status == "Oncoming." else item.family]
    )


def _conflict(frame: Frame, item: Seen, rng: np.random.Generator) -> str:
    """What happens if the ego car goes on, or changes lanes; empty if nothing does."""
    outcome = frame.what_if
    if outcome is None:
        return ""
    if outcome.in_path(item.id):
        seconds = float(outcome.touch[KEEP, item.id])
        if not np.isfinite(seconds):
            return "It leaves the ego car no room to accelerate."
        when = f"in about {seconds:.0f} seconds" if seconds > 1.5 else "very soon"
        forms = (f"it is in the path of the ego car, which would reach it {when} at its present speed",
                 f"without braking, the ego car would hit it {when}")  # fmt: skip
        return sentence(_pick(rng, forms))
    if item.family in ("person", "animal"):
        return ""  # that they may come nearer matters more than what a change of lane would do
    changes = [PRIMITIVES[index].words for index in outcome.colliding(item.id) or [] if PRIMITIVES[index].lanes]
    return f"The ego car could collide with it if it were to {changes[0]}." if changes else ""


def advised(frame: Frame, camera: str) -> bool:
    """Can the plan be told: is its reason to be seen, by this camera where it is somebody?"""
    return frame.reason_shown and (frame.cause is None or frame.cause.camera == camera) and not against_the_light(frame)
