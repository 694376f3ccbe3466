"""A key frame as CODA-LM annotates it: the front picture, what is in it, why it matters, and what to do.

Everything follows from the log and from what the front camera shows. The seed changes the wording, never the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.dataset.coda_words import CARE, NOTHING, advised, concern, conditions, description, place
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.words import because, plan, sentence

CAMERA = "CAM_FRONT"
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
            for number, one in enumerate(told, start=1)
        },
        "driving_suggestion": _suggestion(frame, told, rng),
    }


def _box(item: Seen) -> list[float]:
    x0, y0, x1, y1 = item.box
    return [x0, y0, x1 - x0, y1 - y0]


def _category(item: Seen) -> str:
    if item.is_actor:
        return KINDS[item.kind].coda
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
        parts.append(f"{last} less, but the ego car should keep an eye on {'it' if len(others) == 1 else 'them'}.")
    elif len(told) == 1:
        parts.append("Nothing else that would concern the ego car can be made out ahead.")
    return " ".join(parts)


def _suggestion(frame: Frame, told: Sequence[_Told], rng: np.random.Generator) -> str:
    """The plan with its reason, whom else to mind, and what weather and light ask for."""
    if advised(frame, CAMERA):
        forms = (
            f"the ego car should {plan(frame)}, because {because(frame)}",
            f"because {because(frame)}, the ego car should {plan(frame)}",
        )
        parts = [sentence(forms[int(rng.integers(2))])]
    else:
        parts = ["The ego car should drive with care and adapt its speed to what it can see."]
    others = [one.item for one in told if one.item.is_actor and one.item is not frame.cause]
    if others:
        other = f"the {others[0].name} {place(frame, others[0])}"
        forms = (f"it should also watch {other}", f"{other} needs attention too")
        parts.append(sentence(forms[int(rng.integers(2))]))
    else:
        parts.append("Nobody else ahead needs special attention at the moment.")
    weather, light = frame.drive.scene.conditions.weather, frame.drive.scene.conditions.light
    return " ".join([*parts, CARE.get(weather) or CARE.get(light) or CARE[""]])
