"""Prediction: who comes into the ego vehicle's way, what others do next, what to notice first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from drivedistill.world.action import later
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.perception import OPTIONS_SHARE
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.words import longitudinal, spot, state

CLOSING_M, CLOSING = 1.5, 0.08
"""Within a second the distance changes clearly if it does by that many metres and by this share."""

AHEAD_DEG, DOUBTFUL_DEG = 67.5, 2.5
"""The three sectors in front end at the first angle from straight ahead; what lies closer to it may be in or out."""


def prediction(frame: Frame) -> list[Question]:
    """Questions about the next seconds."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 14])
    questions = []
    for item in frame.key:
        options = bool(rng.random() < OPTIONS_SHARE)
        if item.is_actor:
            questions += [*_in_path(frame, item), *_future(frame, item, options), *_closing(frame, item)]
    return [*questions, *_notice(frame)]


def _in_path(frame: Frame, item: Seen) -> list[Question]:
    inside = frame.what_if.in_path(item.id) if frame.what_if else None
    if inside is None:
        return []
    return [
        Question(
            "prediction", "in_path", f"Would {frame.tags[item.id]} be in the moving direction of the ego vehicle?",
            "Yes." if inside else "No.", tags=(0,), closed=True, group=spot(frame, item), about=(item.id,),
        )
    ]  # fmt: skip


def _future(frame: Frame, item: Seen, options: bool) -> list[Question]:
    if item.future is None:
        return []
    return [
        Question(
            "prediction", "future", f"What is the future state of {frame.tags[item.id]}?", item.future,
            tags=(0,), closed=True, group=spot(frame, item), options=options, about=(item.id,),
        )
    ]  # fmt: skip


def _closing(frame: Frame, item: Seen) -> list[Question]:
    steps = [frame.step, later(frame.step, 1.0)]
    offsets = frame.drive.poses[item.id, steps, :2] - frame.drive.poses[0, steps, :2]
    now, soon = np.hypot(*offsets.T).tolist()
    if abs(soon - now) < max(CLOSING_M, CLOSING * now):
        return []
    return [
        Question(
            "prediction", "closing", f"Does the distance between the ego vehicle and {frame.tags[item.id]} decrease?",
            "Yes." if soon < now else "No.", tags=(0,), closed=True, group=spot(frame, item), about=(item.id,),
        )
    ]  # fmt: skip


def _notice(frame: Frame) -> list[Question]:
    """The cause of the plan first, then what is on the way, then what is closest."""
    ranked = _ranked(frame)
    states = [state(frame, item) for item in ranked]
    if len(ranked) < 3 or None in states:
        return []
    parts = []
    for word, item, is_so in zip(("Firstly", "Secondly", "Thirdly"), ranked, states, strict=True):
        what = longitudinal(frame) if item is frame.cause else "keep an eye on it"
        tag = frame.tags[item.id]
        parts.append(f"{word}, notice that {tag}. The object {is_so}, so the ego vehicle should {what}.")
    return [
        Question(
            "prediction", "notice",
            "What object should the ego vehicle notice first when the ego vehicle is getting to the next possible "
            "location? What is the state of the object that is first noticed by the ego vehicle and what action should "
            "the ego vehicle take? What object should the ego vehicle notice second when the ego vehicle is getting to "
            "the next possible location? What is the state of the object perceived by the ego vehicle as second and "
            "what action should the ego vehicle take? What object should the ego vehicle notice third? What is the "
            "state of the object perceived by the ego vehicle as third and what action should the ego vehicle take?",
            " ".join(parts), tags=(3,), about=tuple(item.id for item in ranked),
        )
    ]  # fmt: skip


def _ranked(frame: Frame) -> list[Seen]:
    """The three objects to notice, in order; empty if there are fewer, or two of them could change places.

    Nobody is told to notice what is neither ahead nor on the ego vehicle's way, now or within the next seconds.
    """
    if frame.what_if is None or (frame.decision and not frame.reason_shown):
        return []
    keys: list[tuple[int, float, Seen]] = []
    for item in frame.key:
        inside = frame.what_if.in_path(item.id) if item.is_actor else False
        if item is frame.cause:
            keys.append((0, 0.0, item))
        elif inside is None:
            return []
        elif item.is_actor and (inside or item.off_front < AHEAD_DEG + DOUBTFUL_DEG):
            keys.append((1 if inside else 2, item.distance, item))
    keys.sort(key=lambda entry: (entry[0], entry[1], entry[2].id))
    for first, second in pairwise(keys[:4]):
        if first[0] == second[0] and second[1] - first[1] < max(1.0, 0.1 * first[1]):
            return []
    doubtful = any(rank == 2 and item.off_front > AHEAD_DEG - DOUBTFUL_DEG for rank, _, item in keys[:3])
    return [] if doubtful else [item for _, _, item in keys[:3]]
