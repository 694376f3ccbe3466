"""Objects of the front picture in words: what they look like, where they are, what they do.

All distances are metres from the front of the ego car.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from drivedistill.world.catalogue import with_article
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import FAMILY_NAMES, Seen
from drivedistill.world.questions.whatif import is_turning
from drivedistill.world.questions.words import sentence
from drivedistill.world.scene import EGO_SIZE, LANE_M

CAMERA = "CAM_FRONT"
Strip: TypeAlias = Literal["own lane", "lane to the left", "lane to the right", "opposite lanes", "edge", "beside"]
"""Part of the road, seen from the ego car."""
ON_ROAD: tuple[Strip, ...] = ("own lane", "lane to the left", "lane to the right", "opposite lanes")

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
NOTHING = (
    "No vehicles, people, traffic signs or obstacles can be made out ahead, so nothing in view limits the ego car; it "
    "should still watch the road for anything that appears."
)
LAMPS = {
    "Braking.": " with lit brake lights",
    "Signalling left.": " with its left indicator on",
    "Signalling right.": " with its right indicator on",
}


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """One of the choices."""
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
    return f"{sentence(pick(rng, forms))} {WEATHER[scene.conditions.weather]}."


def description(frame: Frame, item: Seen, rng: np.random.Generator) -> str:
    """What it looks like, where it is, and what it does."""
    if item.kind == "traffic light":
        who = f"a traffic light showing {item.name.removesuffix(' light')}"
    else:
        who = with_article(item.name) + LAMPS.get(item.status or "", "")
    where, does = place(frame, item), _motion(item)
    return sentence(pick(rng, (f"there is {who} {where}{does}", f"{who} is {where}{does}")))


def called(item: Seen) -> str:
    """The object where it is spoken of again: people are no things."""
    named = item.family in ("person", "cyclist") and item.name != FAMILY_NAMES["cyclist"]
    return f"the {item.name}" if named else "it"


def is_parked(frame: Frame, item: Seen) -> bool:
    """Does it stand beside the lanes without a driver?"""
    return item.is_actor and frame.drive.scene.actors[item.id - 1].role == "parked" and item.moving is False


def strip(frame: Frame, item: Seen) -> Strip | None:
    """Where on the road it is; None at a junction, and while the ego car turns."""
    road, d = frame.drive.scene.road, item.place.d
    if at_junction(frame, item) or is_turning(frame.drive, frame.step) or not item.is_actor:
        return None
    beside = d - float(frame.drive.offsets[frame.step])
    if abs(beside) < LANE_M / 2:
        return "own lane"
    if road.right < d < 0:
        return "lane to the left" if beside > 0 else "lane to the right"
    if 0 <= d < road.left:
        return "opposite lanes"
    return "edge" if road.right - road.margin < d < road.left + road.margin else "beside"


def at_junction(frame: Frame, item: Seen) -> bool:
    """Is it where the roads cross?"""
    junction = frame.drive.scene.road.junction
    return junction is not None and abs(item.place.s - junction.s) < 2 * LANE_M


def place(frame: Frame, item: Seen) -> str:
    """Distance, and where on the road; only the side where the ego car turns or the road gives no better word."""
    metres = max(1.0, item.distance - EGO_SIZE[0] / 2)
    metres = 5 * round(metres / 5) if metres > 12 else round(metres)
    near = f"about {metres:.0f} {'meter' if metres == 1 else 'meters'}"
    where, side = strip(frame, item), "left" if item.place.y > 0 else "right"
    if where is None:
        aside = f"{near} ahead on the {side}" if abs(item.place.y) > 0.1 * item.place.x else f"straight ahead at {near}"
        return f"{aside}, at the junction" if at_junction(frame, item) else aside
    if where in ("edge", "beside"):
        edge = "right" if item.place.d < 0 else "left"
        return f"{near} ahead {'at' if where == 'edge' else 'beside'} the {edge} edge of the road"
    return f"{near} ahead in the {'lane of the ego car' if where == 'own lane' else where}"


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
