"""A key frame as CODA-LM annotates it: the front picture, what is in it, why it matters, and what to do.

Everything follows from the log and from what the front camera shows. The seed changes the wording, never the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.dataset.coda_advice import GENERAL, advice, care
from drivedistill.world.dataset.coda_concern import concern
from drivedistill.world.dataset.coda_words import CAMERA, NOTHING, conditions, description, pick, place
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import FAMILY_NAMES, Seen
from drivedistill.world.questions.words import sentence

TEXT = "description and explanation"
OBJECTS, EXPLAINED = 4, 2
"""Most objects that a picture's text speaks of, and so many of them in full."""
GROUPS = {
    "vehicles": ("car", "truck", "tram", "tricycle", "bus", "trailer", "construction_vehicle", "recreational_vehicle"),
    "vulnerable_road_users": (
        "pedestrian", "cyclist", "bicycle", "moped", "motorcycle", "stroller", "wheelchair", "cart",
    ),
    "traffic signs": ("warning_sign", "traffic_sign"),
    "traffic lights": ("traffic_light",),
    "traffic cones": ("traffic_cone",),
    "barriers": ("barrier", "bollard"),
    "other objects": (),
}  # fmt: skip
"""CODA-LM's lists -> categories; every other category is among the other objects."""
VAGUE = {
    FAMILY_NAMES["vehicle"]: "car",
    FAMILY_NAMES["cyclist"]: "cyclist",
    FAMILY_NAMES["person"]: "pedestrian",
    FAMILY_NAMES["animal"]: "misc",
    FAMILY_NAMES["debris"]: "misc",
}
"""Name of what is hardly seen -> category; the true one would tell more than the picture does."""
UNCLEAR = (FAMILY_NAMES["cyclist"],)
"""Names that fit two categories: no region asks for one of them."""


@dataclass(frozen=True)
class _Told:
    """An object, described and explained."""

    item: Seen
    category: str
    description: str
    explanation: str

    @property
    def text(self) -> str:
        return f"{self.description} {self.explanation}"


def coda_annotation(frame: Frame) -> dict[str, Any]:
    """The annotation of the front picture in CODA-LM's published form.

    Args:
        frame: A key frame, as a rule of a corner case.

    Returns:
        `general_perception` (seven lists and a text), `region_perception` (boxes x, y, width, height in pixels of the
        picture; the scripted hazard first) and `driving_suggestion`. Only what the front camera shows is spoken of. No
        action is advised whose reason cannot be seen.
    """
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 17])
    told = [
        _Told(item, _category(item), description(frame, item, rng), concern(frame, item, rng))
        for item in _subjects(frame)
    ]
    lists: dict[str, Any] = {group: [] for group in GROUPS}
    for one in told:
        lists[_group(one.category)].append({"description": one.description, "explanation": one.explanation})
    return {
        "general_perception": lists | {TEXT: _paragraph(frame, told, rng)},
        "region_perception": {
            str(number): {TEXT: one.text, "box": _box(one.item), "category_name": one.category}
            for number, one in enumerate((one for one in told if one.item.name not in UNCLEAR), start=1)
        },
        "driving_suggestion": _suggestion(frame, told, rng),
    }


def _box(item: Seen) -> list[float]:
    x0, y0, x1, y1 = item.box
    return [x0, y0, x1 - x0, y1 - y0]


def _category(item: Seen) -> str:
    if item.is_actor:
        return VAGUE.get(item.name, KINDS[item.kind].coda)
    return "traffic_light" if item.kind == "traffic light" else "traffic_sign"


def _group(category: str) -> str:
    return next((group for group, categories in GROUPS.items() if category in categories), "other objects")


def _subjects(frame: Frame) -> list[Seen]:
    """What the front camera shows, by importance, one light at most; the idle only where there is little else."""
    ranked = sorted((item for item in frame.seen if item.camera == CAMERA), key=lambda item: _rank(frame, item))
    lights = [item for item in ranked if item.kind == "traffic light"]
    idle = [item for item in ranked if _idle(frame, item)]
    busy = [item for item in ranked if item not in idle and item not in lights[1:]]
    return [*busy, *idle[: max(0, 2 - len(busy))]][:OBJECTS]


def _rank(frame: Frame, item: Seen) -> tuple[bool, bool, bool, float, int]:
    """Hazards first, then the reason of the plan, then what is in the way, then the nearest."""
    hazard = item.is_actor and frame.drive.scene.actors[item.id - 1].hazard
    in_path = item.is_actor and frame.what_if is not None and bool(frame.what_if.in_path(item.id))
    return not hazard, item is not frame.cause, not in_path, item.distance, item.id


def _idle(frame: Frame, item: Seen) -> bool:
    """It stands or walks beside the road and concerns nobody."""
    hazard, cause, path, *_ = _rank(frame, item)
    roles = ("parked", "walking", "bystander")
    return hazard and cause and path and item.is_actor and frame.drive.scene.actors[item.id - 1].role in roles


def _paragraph(frame: Frame, told: Sequence[_Told], rng: np.random.Generator) -> str:
    """All objects in one text: the important ones explained, the others summed up."""
    main, others = told[:EXPLAINED], told[EXPLAINED:]
    parts = [conditions(frame, rng), *(one.text for one in main), *(one.description for one in others)]
    if not told:
        parts.append(NOTHING)
    elif others:
        last = "The last one matters" if len(others) == 1 else "The last two matter"
        parts.append(f"{last} less but should not be forgotten.")
    elif len(told) == 1:
        parts.append("Nothing else that would concern the ego car can be made out ahead.")
    return " ".join(parts)


def _suggestion(frame: Frame, told: Sequence[_Told], rng: np.random.Generator) -> str:
    """The plan with its reason, whom else to mind, and what weather and light ask for."""
    given = advice(frame)
    if given is None:
        parts = [pick(rng, GENERAL)]
    else:
        forms = (
            f"the ego car should {given.act}, because {given.reason}",
            f"because {given.reason}, the ego car should {given.act}",
        )
        parts = [sentence(pick(rng, forms))]
    others = [one.item for one in told if one.item.is_actor and (given is None or one.item is not given.item)]
    if others:
        other = f"the {others[0].name} {place(frame, others[0])}"
        forms = (f"it should also watch {other}", f"{other} needs attention too")
        parts.append(sentence(pick(rng, forms)))
    else:
        named = given is not None and given.item is not None
        parts.append(f"Nobody {'else ' if named else ''}ahead needs special attention at the moment.")
    return " ".join([*parts, care(frame, given, rng)])
