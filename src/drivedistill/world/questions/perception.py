"""Perception: which objects there are, what they are, what they do, what hides them; light and weather."""

from __future__ import annotations

from collections import Counter

import numpy as np

from drivedistill.world.catalogue import with_article
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import FAMILY_NAMES, REFERENCE, Seen
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.words import listing, sentence, several, spot

OPTIONS_SHARE = 1 / 3
"""Share of the questions with nominal answers that are asked as multiple choice."""
HIDDEN, FREE = 0.3, 0.02
"""Share of an object that others hide: above the first it is partly hidden, below the second it is not."""
HIDDEN_PIXELS = 80
"""Pixels at 224 x 224 from which one sees whether something is hidden."""


def perception(frame: Frame) -> list[Question]:
    """Questions about single objects, and about the conditions."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 11])
    return [*_objects(frame), *_conditions(frame, rng), *_properties(frame, rng)]


def _objects(frame: Frame) -> list[Question]:
    if not frame.key:
        return []
    alike = Counter((item.name, item.sector) for item in frame.key)
    there = listing(
        [f"{several(noun, count)} to the {sector} of the ego vehicle" for (noun, sector), count in alike.items()]
    )
    verb = "is" if next(iter(alike.values())) == 1 else "are"
    tags, plural = [frame.tags[item.id] for item in frame.key], len(frame.key) > 1
    which = "The IDs of these objects are" if plural else "The ID of this object is"
    return [
        Question(
            "perception", "objects",
            "What are the important objects in the current scene? Those objects will be considered for the future "
            "reasoning and driving decision.",
            f"There {verb} {there}. {which} {listing(tags)}.",
            tags=(2,), about=tuple(item.id for item in frame.key),
        )
    ]  # fmt: skip


def _conditions(frame: Frame, rng: np.random.Generator) -> list[Question]:
    conditions = frame.drive.scene.conditions
    dry_night = conditions.light == "night" and conditions.weather in ("clear", "cloudy")
    weather = sentence(f"{'dry' if dry_night else conditions.weather}, {conditions.light}")
    light = sentence(frame.light) if frame.light else "There is no traffic light."
    questions = [
        Question(
            "perception", "weather", "What are the weather and lighting conditions?", weather,
            tags=(0,), closed=True, options=bool(rng.random() < OPTIONS_SHARE),
        )
    ]  # fmt: skip
    options = bool(rng.random() < OPTIONS_SHARE)
    if frame.light or frame.no_light:
        questions.append(
            Question(
                "perception", "light", "What is the state of the traffic light ahead of the ego vehicle?", light,
                tags=(0,), closed=True, options=options,
            )
        )  # fmt: skip
    return questions


def _properties(frame: Frame, rng: np.random.Generator) -> list[Question]:
    """Moving status, description and occlusion of every key object."""
    questions = []
    for item in frame.key:
        tag, about = frame.tags[item.id], (item.id,)
        options = bool(rng.random() < OPTIONS_SHARE)
        if item.status:
            questions.append(
                Question(
                    "perception", "status", f"What is the moving status of object {tag}?", item.status,
                    tags=(0,), closed=True, group=spot(frame, item), options=options, about=about,
                )
            )  # fmt: skip
        if item.name != FAMILY_NAMES.get(item.family):
            questions.append(
                Question(
                    "perception", "description", f"What is the visual description of {tag}?", sentence(item.name),
                    tags=(2,), about=about,
                )
            )  # fmt: skip
        questions += _hidden(frame, item)
    return questions


def _hidden(frame: Frame, item: Seen) -> list[Question]:
    """Is it partly hidden, and by what?"""
    tag, about, occluder = frame.tags[item.id], (item.id,), frame.by_id.get(item.hidden_by)
    large = item.pixels[item.camera] * REFERENCE / (frame.size[0] * frame.size[1]) >= HIDDEN_PIXELS
    is_hidden = item.hidden > HIDDEN and occluder is not None
    if not item.is_actor or not large or not (item.hidden < FREE or is_hidden):
        return []
    questions = [
        Question(
            "perception", "hidden", f"Is {tag} partly hidden behind another object?", "Yes." if is_hidden else "No.",
            tags=(0,), closed=True, group=spot(frame, item), about=about,
        )
    ]  # fmt: skip
    if occluder and is_hidden:
        questions.append(
            Question(
                "perception", "hidden_by", f"Which object hides a part of {tag}?",
                sentence(with_article(occluder.name)), tags=(2,), about=about,
            )
        )  # fmt: skip
    return questions
