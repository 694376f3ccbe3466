"""Perception over several objects: are there any, how many are there, are there more here than there.

Every question is asked only if nothing doubtful could change its answer: objects that are barely visible, on a border
between sectors, between standing and moving, or of a kind that people would file differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from drivedistill.records import CAMERAS
from drivedistill.world.catalogue import KINDS
from drivedistill.world.questions.frame import SPECK, Frame
from drivedistill.world.questions.motion import moves
from drivedistill.world.questions.observe import REFERENCE, SECTORS
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.words import number
from drivedistill.world.questions.words import word as group_word
from drivedistill.world.track import Floats

Item = TypeVar("Item")
Verdicts: TypeAlias = NDArray[np.int8]
"""int8[n], one per instance: `NO`, `DOUBTFUL` or `YES`; "and" is the minimum."""
NO, DOUBTFUL, YES = 0, 1, 2

CARS = frozenset({"sedan", "SUV", "hatchback", "taxi", "van", "pickup", "police car"})
CLASSES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "cars": (CARS, frozenset({"overturned car", "ambulance"})),
    "trucks": (
        frozenset({"truck", "fire truck", "cement mixer"}),
        frozenset({"pickup", "ambulance", "van", "excavator", "log trailer"}),
    ),
    "buses": (frozenset({"bus"}), frozenset()),
    "pedestrians": (
        frozenset({"pedestrian", "child", "construction worker", "person with a stroller"}),
        frozenset({"wheelchair user"}),
    ),
    "bicycles with riders": (frozenset({"cyclist"}), frozenset()),
    "motorcycles with riders": (frozenset({"motorcyclist"}), frozenset()),
    "animals": (frozenset(kind for kind in KINDS if KINDS[kind].family == "animal"), frozenset({"horse cart"})),
    "traffic cones": (frozenset({"traffic cone"}), frozenset()),
    "barriers": (frozenset({"construction barrier"}), frozenset()),
    "vehicles": (
        frozenset(kind for kind in KINDS if KINDS[kind].family == "vehicle") - {"log trailer", "horse cart"},
        frozenset({"log trailer", "horse cart", "overturned car", "motorcyclist"}),
    ),
}
"""Class -> kinds that belong to it, and kinds about which people disagree."""
STATES = {"": ("cars", "trucks", "buses", "pedestrians", "bicycles with riders", "motorcycles with riders", "animals",
               "traffic cones", "barriers"),
          "moving ": ("cars", "trucks", "pedestrians"), "stopped ": ("cars", "trucks"),
          "standing ": ("pedestrians",)}  # fmt: skip
"""Word before the class -> classes about which presence is asked with it."""
COLOURS = ("white", "black", "silver", "gray", "red", "blue")
SECTOR_WEIGHTS = (0.22, 0.18, 0.08, 0.09, 0.16, 0.08, 0.06, 0.13)
"""How often things are in the sectors: "no" is asked about places that could have been "yes"."""
CLASS_WEIGHTS = {"cars": 4.0, "trucks": 2.0, "pedestrians": 2.0}
SURE_PIXELS = 60
"""Pixels at 224 x 224 in one picture from which on everybody counts it."""
PRESENT, ABSENT = 4, 5
"""Most presence questions per answer and frame."""
COUNTS, COUNTS_AROUND, COMPARISONS = 3, 3, 2
"""Questions of a kind per frame"""


@dataclass(frozen=True)
class _Instances:
    """Everything with a pixel, as arrays."""

    kinds: list[str]
    colours: list[str]
    """Empty where it cannot be told"""
    x: Floats
    y: Floats
    half_angle: Floats
    """Half of the angle under which it appears, degrees"""
    moving: Verdicts
    seen: NDArray[np.bool_]
    in_camera: dict[str, Verdicts]


def counting(frame: Frame) -> list[Question]:
    """Presence, counts and comparisons of counts."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 12])
    everything = _instances(frame)
    sides, attributes = _sides(everything), _attributes(everything)
    return [
        *_presence(everything, rng),
        *_counts(everything, rng),
        *_counts_around(sides, attributes, rng),
        *_comparisons(sides, attributes | {"vehicles": _in_class(everything, "vehicles")}, rng),
    ]


def _instances(frame: Frame) -> _Instances:
    drive, step = frame.drive, frame.step
    ids = [instance for instance in sorted({*frame.by_id, *frame.faint}) if instance <= len(drive.scene.actors)]
    actors = [drive.scene.actors[instance - 1] for instance in ids]
    places = np.array([drive.seen_from_ego(instance, step)[:2] for instance in ids]).reshape(-1, 2)
    lengths = np.array([KINDS[actor.kind].size[0] for actor in actors])
    moving = [{True: YES, False: NO, None: DOUBTFUL}[moves(drive, instance, step)] for instance in ids]
    area = REFERENCE / (frame.size[0] * frame.size[1])
    in_camera = {}
    for camera in CAMERAS:
        verdicts = []
        for instance in ids:
            item = frame.by_id.get(instance)
            pixels = item.pixels.get(camera, 0) * area if item else SPECK
            sure = item is not None and (item.camera == camera or pixels >= SURE_PIXELS)
            verdicts.append(YES if sure else NO if pixels < SPECK else DOUBTFUL)
        in_camera[camera] = np.array(verdicts, np.int8)
    return _Instances(
        [actor.kind for actor in actors],
        [frame.by_id[instance].colour if instance in frame.by_id else "" for instance in ids],
        places[:, 0],
        places[:, 1],
        np.degrees(np.arctan2(lengths / 2, np.maximum(np.hypot(*places.T), 1.0))),
        np.array(moving, np.int8),
        np.array([instance in frame.by_id for instance in ids], bool),
        in_camera,
    )


def _in_class(everything: _Instances, name: str) -> Verdicts:
    """Membership; what is barely visible is doubtful at best."""
    members, doubtful = CLASSES[name]
    verdicts = [YES if kind in members else DOUBTFUL if kind in doubtful else NO for kind in everything.kinds]
    return np.minimum(np.array(verdicts, np.int8), np.where(everything.seen, YES, DOUBTFUL)).astype(np.int8)


def _in_state(everything: _Instances, word: str) -> Verdicts:
    if word in ("stopped ", "standing "):
        return (YES - everything.moving).astype(np.int8)
    return everything.moving if word == "moving " else np.full_like(everything.moving, YES)


def _in_sectors(everything: _Instances) -> Verdicts:
    """The verdicts of the eight sectors: int8[8, n]."""
    angles = np.degrees(np.arctan2(everything.y, everything.x))
    centres = 45.0 * np.arange(len(SECTORS))[:, None]
    away = np.abs((angles - centres + 180) % 360 - 180)
    inside, outside = away <= 17.5, away >= 27.5 + everything.half_angle
    return np.where(inside, YES, np.where(outside, NO, DOUBTFUL)).astype(np.int8)


def _presence(everything: _Instances, rng: np.random.Generator) -> list[Question]:
    sectors = _in_sectors(everything)
    yes: list[tuple[str, str, int]] = []
    no: list[tuple[str, str, int]] = []
    for word, names in STATES.items():
        for name in names:
            matching = np.minimum(_in_class(everything, name), _in_state(everything, word))
            for index, verdict in enumerate(np.minimum(matching, sectors).max(1, initial=NO).tolist()):
                if verdict != DOUBTFUL:
                    (yes if verdict == YES else no).append((word, name, index))
    weights = np.array([SECTOR_WEIGHTS[index] * CLASS_WEIGHTS.get(name, 1.0) for _, name, index in no])
    chosen_yes = rng.choice(len(yes), min(PRESENT, len(yes)), replace=False) if yes else []
    chosen_no = rng.choice(len(no), min(ABSENT, len(no)), replace=False, p=weights / weights.sum()) if no else []
    picked = [(*yes[index], "Yes.") for index in chosen_yes] + [(*no[index], "No.") for index in chosen_no]
    return [
        Question(
            "perception", "presence", f"Are there {word}{name} to the {SECTORS[index]} of the ego car?", answer,
            tags=(0,), closed=True, group=f"{group_word(name)} {group_word(SECTORS[index])} {word}",
        )
        for word, name, index, answer in picked
    ]  # fmt: skip


def _count(verdicts: Verdicts) -> str | None:
    """The number of those who surely count; None if doubtful ones could change the answer."""
    sure, most = int(np.count_nonzero(verdicts == YES)), int(np.count_nonzero(verdicts))
    return number(sure) if number(sure) == number(most) else None


def _counts(everything: _Instances, rng: np.random.Generator) -> list[Question]:
    """In one picture."""
    classes = {name: _in_class(everything, name) for name in ("vehicles", "cars", "pedestrians", "traffic cones")}
    choices = [(name, camera) for name in classes for camera in CAMERAS]
    questions: list[Question] = []
    for name, camera in _shuffled(choices, rng):
        if len(questions) == COUNTS:
            break
        answer = _count(np.minimum(classes[name], everything.in_camera[camera]))
        if answer and (answer != "0" or name in ("vehicles", "cars")):
            questions.append(
                Question(
                    "perception", "count", f"How many {name} are visible in {camera}?", answer,
                    tags=(0,), closed=True, group=f"{group_word(name)} {camera}",
                )
            )  # fmt: skip
    return questions


def _sides(everything: _Instances) -> dict[str, Verdicts]:
    """Region around the ego vehicle, in words -> who is there."""

    def beyond(values: Floats, near: float, far: float) -> Verdicts:
        return np.where(values > far, YES, np.where(values < near, NO, DOUBTFUL)).astype(np.int8)

    return {
        "around the ego vehicle": np.full(len(everything.x), YES, np.int8),
        "in front of the ego vehicle": beyond(everything.x, 0.0, 2.0),
        "behind the ego vehicle": beyond(-everything.x, 0.0, 2.0),
        "to the left of the ego vehicle": beyond(everything.y, 1.0, 2.0),
        "to the right of the ego vehicle": beyond(-everything.y, 1.0, 2.0),
    }


def _attributes(everything: _Instances) -> dict[str, Verdicts]:
    """What is counted, in words -> who it is."""
    vehicles, people = _in_class(everything, "vehicles"), _in_class(everything, "pedestrians")
    found = {}
    for colour in COLOURS:
        same = [YES if other == colour else NO if other else DOUBTFUL for other in everything.colours]
        found[f"{colour} vehicles"] = np.minimum(vehicles, np.array(same, np.int8))
    for word in ("moving ", "stopped "):
        found[f"{word}vehicles"] = np.minimum(vehicles, _in_state(everything, word))
    found["moving pedestrians"] = np.minimum(people, _in_state(everything, "moving "))
    found["standing pedestrians"] = np.minimum(people, _in_state(everything, "standing "))
    return found


def _counts_around(
    sides: dict[str, Verdicts], attributes: dict[str, Verdicts], rng: np.random.Generator
) -> list[Question]:
    """In all pictures together, by an attribute and a side."""
    questions: list[Question] = []
    for what, where in _shuffled([(what, where) for what in attributes for where in sides], rng):
        if len(questions) == COUNTS_AROUND:
            break
        answer = _count(np.minimum(attributes[what], sides[where]))
        if answer and (answer != "0" or rng.random() < 0.15):
            questions.append(
                Question(
                    "perception", "count_around", f"How many {what} are there {where}?", answer,
                    tags=(0,), closed=True, group=f"{group_word(what)} {group_word(where)}",
                )
            )  # fmt: skip
    return questions


def _comparisons(
    sides: dict[str, Verdicts], attributes: dict[str, Verdicts], rng: np.random.Generator
) -> list[Question]:
    """Are there more on one side than on the other? Asked if the numbers differ by two whatever the doubtful ones are."""
    pairs = [
        ("in front of the ego vehicle", "behind the ego vehicle", "behind it"),
        ("behind the ego vehicle", "in front of the ego vehicle", "in front of it"),
        ("to the left of the ego vehicle", "to the right of the ego vehicle", "to its right"),
        ("to the right of the ego vehicle", "to the left of the ego vehicle", "to its left"),
    ]
    whats = ["vehicles", "moving vehicles", "stopped vehicles"]
    questions: list[Question] = []
    for what, (here, there, short) in _shuffled([(what, pair) for what in whats for pair in pairs], rng):
        if len(questions) == COMPARISONS:
            break
        verdicts = [np.minimum(attributes[what], sides[side]) for side in (here, there)]
        low, high = zip(*((np.count_nonzero(item == YES), np.count_nonzero(item)) for item in verdicts), strict=True)
        if low[0] - high[1] >= 2 or low[1] - high[0] >= 2:
            questions.append(
                Question(
                    "perception", "more", f"Are there more {what} {here} than {short}?",
                    "Yes." if low[0] > low[1] else "No.",
                    tags=(0,), closed=True, group=f"{group_word(what)} {group_word(here)}",
                )
            )  # fmt: skip
    return questions


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    return [items[index] for index in rng.permutation(len(items))]
