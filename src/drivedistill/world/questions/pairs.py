"""Questions about two objects: which is closer, where is one beside the other, who is faster, who goes whose way."""

from __future__ import annotations

import numpy as np

from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.words import goes_by_its_name, spot

PER_TEMPLATE = 3
CLEARLY_M, CLEARLY = 2.0, 1.2
"""Distances differ clearly if they do by two metres and by a fifth."""
WALKING = 1.25
"""m/s from which something is faster than what stands."""


def pairs(frame: Frame) -> list[Question]:
    """Relations between two key objects; which one is named first is drawn."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 13])
    actors = [item for item in frame.key if item.is_actor]
    couples = [(one, other) for one in actors for other in actors if one.id < other.id]
    ordered = [couples[index] for index in rng.permutation(len(couples))]
    swapped = [(other, one) if rng.random() < 0.5 else (one, other) for one, other in ordered]
    questions = []
    for template in (_closer, _beside, _ahead, _faster, _same_direction):
        asked = [question for one, other in swapped if (question := template(frame, one, other))]
        questions += asked[:PER_TEMPLATE]
    return questions


def _closer(frame: Frame, one: Seen, other: Seen) -> Question | None:
    """By names: in a picture, the lower one is mostly the closer one."""
    near, far = sorted((one.distance, other.distance))
    if far - near < CLEARLY_M or far < CLEARLY * near:
        return None
    text = "Is the {} closer to the ego vehicle than the {}?"
    return _by_names("closer", text, one.distance < other.distance, one, other) if _named(frame, one, other) else None


def _beside(frame: Frame, one: Seen, other: Seen) -> Question | None:
    """Left or right on the ground; only if the directions to both agree with it. Tags would tell: names are used."""
    shift = one.place.y - other.place.y
    bearings = [float(np.arctan2(item.place.y, abs(item.place.x))) for item in (one, other)]
    agree = (bearings[0] - bearings[1]) * np.sign(shift) > 0.05
    if abs(shift) < CLEARLY_M or not agree or not _named(frame, one, other):
        return None
    return _by_names("beside", "Is the {} further to the left than the {}?", shift > 0, one, other)


def _ahead(frame: Frame, one: Seen, other: Seen) -> Question | None:
    """Further along the ego vehicle's direction; by names, since height in the picture would tell."""
    ahead = one.place.x - other.place.x
    tie = abs(ahead) < max(3.0, 0.2 * max(abs(one.place.x), abs(other.place.x)))
    if tie or not _named(frame, one, other):
        return None
    text = "Is the {} further ahead than the {}, in the direction of the ego vehicle?"
    return _by_names("ahead", text, ahead > 0, one, other)


def _named(frame: Frame, *items: Seen) -> bool:
    return all(goes_by_its_name(frame, item) for item in items)


def _by_names(template: str, text: str, yes: bool, one: Seen, other: Seen) -> Question:
    """A question about two objects without tags."""
    return Question(
        "prediction" if template == "faster" else "perception",
        template, text.format(one.name, other.name), "Yes." if yes else "No.",
        tags=(0,), closed=True, group=f"{one.family} {other.family}", about=(one.id, other.id),
    )  # fmt: skip


def _faster(frame: Frame, one: Seen, other: Seen) -> Question | None:
    """Only what a picture can show: one stands and the other moves, or one walks and the other drives.

    By names: what waits and what drives lie at other places in the pictures.
    """
    slow, fast = sorted((one, other), key=lambda item: item.speed)
    walks = slow.family in ("person", "animal") and fast.family in ("vehicle", "cyclist")
    stands = slow.moving is False and fast.speed > WALKING
    if not (stands or (walks and fast.speed > max(5.0, 2 * slow.speed))) or not _named(frame, one, other):
        return None
    return _by_names("faster", "Is the {} faster than the {}?", one is fast, one, other)


def _same_direction(frame: Frame, one: Seen, other: Seen) -> Question | None:
    between = abs(np.degrees(np.pi - (np.pi - (one.place.yaw - other.place.yaw)) % (2 * np.pi)))
    if not (one.moving and other.moving) or 30 < between < 60:
        return None
    return Question(
        "prediction", "same_direction",
        f"Do {frame.tags[one.id]} and {frame.tags[other.id]} move in the same direction?",
        "Yes." if between <= 30 else "No.",
        tags=(0,), closed=True, group=_spots(frame, one, other), about=(one.id, other.id),
    )  # fmt: skip


def _spots(frame: Frame, one: Seen, other: Seen) -> str:
    """Cameras and columns of both."""
    words = [spot(frame, item).split() for item in (one, other)]
    return f"{words[0][0]} {words[1][0]} {words[0][1]} {words[1][1]}"
