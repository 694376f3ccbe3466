"""Questions about lanes: what comes next in the ego vehicle's, who wants to enter it, is there room in the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.action import later
from drivedistill.world.catalogue import KINDS, with_article
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.motion import LAMP_PIXELS, heading_to_ego
from drivedistill.world.questions.observe import REFERENCE, Seen
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.whatif import IN_LANE_M, PRIMITIVES, is_turning
from drivedistill.world.questions.words import goes_by_its_name, sentence, spot, word
from drivedistill.world.scene import EGO_SIZE, LANE_M
from drivedistill.world.track import Floats

FREE_M, NEXT_M = 60.0, 55.0
"""Nothing is ahead if the lane is free for the first distance; what is next is asked up to the second."""
IN_M = 1.0
"""Whose middle is this close to the middle of the lane stands in it."""
REACH_S = 6.5
ENTERS_M = (6.0, 21.0)
"""How far ahead vehicles are that move into the ego vehicle's lane"""


@dataclass(frozen=True)
class _Lane:
    """The ego vehicle's lane, and where the actors are in it; entry i of an array is the actor with id i, 0 the ego."""

    ahead: Floats
    """Metres along the road from the middle of the ego vehicle to the middle of the other"""
    gap: Floats
    """Metres from bumper to bumper along the road; negative: beside or behind"""
    beside: Floats
    """Metres from the middle of the lane to the left"""
    half_width: Floats
    """Of the footprints, across the lane"""


def lanes(frame: Frame) -> list[Question]:
    """Questions that need the road; none in a turn, between lanes or away from the main road."""
    questions = [*_room(frame), *_between(frame)]
    lane = _ego_lane(frame)
    if lane is not None:
        questions += [*_next(frame, lane), *_reach(frame, lane), *_intentions(frame, lane)]
    return questions


def _ego_lane(frame: Frame) -> _Lane | None:
    drive, step = frame.drive, frame.step
    if is_turning(drive, step) or np.any(drive.turning[:step]):
        return None
    track, poses = drive.scene.road.track, drive.poses[:, step]
    s, d = track.project(poses[:, 0], poses[:, 1])
    middle = drive.scene.road.lane(round(-float(d[0]) / LANE_M - 0.5))
    if abs(d[0] - middle) > IN_LANE_M:
        return None
    heading = poses[:, 2] - np.interp(s, track.start + 0.5 * np.arange(len(track.headings)), track.headings)
    sizes = np.array([EGO_SIZE, *(KINDS[actor.kind].size for actor in drive.scene.actors)]) / 2
    along = np.abs(np.cos(heading)) * sizes[:, 0] + np.abs(np.sin(heading)) * sizes[:, 1]
    across = np.abs(np.sin(heading)) * sizes[:, 0] + np.abs(np.cos(heading)) * sizes[:, 1]
    return _Lane(s - s[0], s - s[0] - along - along[0], d - middle, across)


def _next(frame: Frame, lane: _Lane) -> list[Question]:
    """What comes next, and is this it?"""
    ahead = lane.gap > 0
    ahead[0] = False
    touching = ahead & (np.abs(lane.beside) < LANE_M / 2 + 0.2 + lane.half_width) & (lane.gap < FREE_M + 10)
    candidates = sorted(np.flatnonzero(touching).tolist(), key=lambda actor: float(lane.gap[actor]))
    text = "What is the next object ahead in the lane of the ego vehicle?"
    if not candidates:
        answer = f"Nothing within {FREE_M:.0f} meters."
        return [Question("perception", "next_in_lane", text, answer, tags=(2,)), *_is_next(frame, 0)]
    first = candidates[0]
    item = frame.by_id.get(first)
    if item is None or abs(lane.beside[first]) > IN_M or lane.gap[first] > NEXT_M:
        return []
    if len(candidates) > 1 and lane.gap[candidates[1]] < lane.gap[first] + 1.0:
        return []
    return [
        Question(
            "perception", "next_in_lane", text, sentence(with_article(item.name)), tags=(2,), about=(first,)
        ),
        *_is_next(frame, first),
    ]  # fmt: skip


def _is_next(frame: Frame, first: int) -> list[Question]:
    """By names: whose tag lies low in the middle of the front picture is next."""
    return [
        Question(
            "perception", "is_next", f"Is the {item.name} the next object ahead in the lane of the ego vehicle?",
            "Yes." if item.id == first else "No.",
            tags=(0,), closed=True, group=item.family, about=(item.id,),
        )
        for item in frame.key
        if item.is_actor and goes_by_its_name(frame, item)
    ]  # fmt: skip


def _reach(frame: Frame, lane: _Lane) -> list[Question]:
    """When is the ego vehicle level with what stands ahead? Its speed is told, the distance must be seen."""
    speed = round(frame.speed)
    if speed < 2 or abs(frame.speed - speed) > 0.3:
        return []
    questions = []
    for item in frame.key:
        if not item.is_actor or item.moving is not False or item.place.x < 3:
            continue
        seconds = float(lane.ahead[item.id]) / speed
        if not 0.7 < seconds < REACH_S or abs(seconds - round(seconds)) > 0.3:
            continue
        unit = "second" if round(seconds) == 1 else "seconds"
        questions.append(
            Question(
                "prediction", "reach",
                f"The ego vehicle drives at {speed} meters per second. If it keeps its speed, when will it be level "
                f"with {frame.tags[item.id]}?",
                f"In about {round(seconds)} {unit}.",
                tags=(0,), closed=True, group=f"{speed} {spot(frame, item)}", about=(item.id,),
            )
        )  # fmt: skip
    return questions


def _intentions(frame: Frame, lane: _Lane) -> list[Question]:
    """Do vehicles beside the ego vehicle's lane want to enter it? Their indicators tell, and they do it.

    Asked only where those are who do, in the next lane some metres ahead: other places would tell who does not.
    """
    drive, step = frame.drive, frame.step
    questions = []
    for item in frame.key:
        beside = float(lane.beside[item.id]) if item.is_actor else 0.0
        pixels = item.pixels[item.camera] * REFERENCE / (frame.size[0] * frame.size[1])
        same = item.family == "vehicle" and item.moving and heading_to_ego(drive, item.id, step) == "same"
        near = ENTERS_M[0] < item.place.x < ENTERS_M[1] and 2.3 < abs(beside) < 4.0
        if not same or not near or pixels < LAMP_PIXELS:
            continue
        toward = -int(np.sign(beside))
        end = later(step, 4.0)
        moved = float(drive.scene.road.track.project(*drive.poses[item.id, end, :2])[1]) - item.place.d
        signal = int(drive.indicators[item.id, step])
        enters = signal == toward and moved * toward > 1.5
        if enters or (signal != toward and moved * toward < 0.4):
            questions.append(
                Question(
                    "prediction", "intention",
                    f"Does {frame.tags[item.id]} intend to move into the lane of the ego vehicle?",
                    "Yes." if enters else "No.",
                    tags=(0,), closed=True, group=spot(frame, item), about=(item.id,),
                )
            )  # fmt: skip
    return questions


def _room(frame: Frame) -> list[Question]:
    """Can the ego vehicle change to a lane of its direction?"""
    outcome = frame.what_if
    if outcome is None:
        return []
    questions = []
    for index, primitive in enumerate(PRIMITIVES):
        if not primitive.lanes or not outcome.possible[index] or outcome.lawful[index] is not True:
            continue
        touched = np.flatnonzero(np.isfinite(outcome.touch[index]))
        close = np.flatnonzero(np.isfinite(outcome.near[index]))
        if not len(close) or any(actor in frame.by_id for actor in touched.tolist()):
            side = "left" if primitive.lanes > 0 else "right"
            questions.append(
                Question(
                    "planning", "room", f"Is there room for the ego vehicle to change to the {side} lane now?",
                    "No." if len(close) else "Yes.", tags=(0,), closed=True, group=side,
                )
            )  # fmt: skip
    return questions


def _between(frame: Frame) -> list[Question]:
    """Does something stand on the straight line from the ego vehicle to an object? By names: tags would tell."""
    drive = frame.drive
    ids = [instance for instance in (*frame.by_id, *frame.faint) if instance <= len(drive.scene.actors)]
    halves = np.array([KINDS[drive.scene.actors[instance - 1].kind].size[:2] for instance in ids]) / 2
    questions = []
    for item in frame.key:
        if not item.is_actor or item.distance < 8 or not goes_by_its_name(frame, item):
            continue
        others = np.array([instance != item.id for instance in ids])
        surely = _on_line(frame, item, ids, halves * 0.8) & others & np.isin(ids, list(frame.by_id))
        perhaps = _on_line(frame, item, ids, halves + 0.7) & others
        if surely.any() == perhaps.any():
            questions.append(
                Question(
                    "perception", "between", f"Is there an object between the ego vehicle and the {item.name}?",
                    "Yes." if surely.any() else "No.",
                    tags=(0,), closed=True, group=f"{item.family} {word(item.kind)}", about=(item.id,),
                )
            )  # fmt: skip
    return questions


def _on_line(frame: Frame, item: Seen, ids: list[int], halves: Floats) -> NDArray[np.bool_]:
    """bool[n]: does the line from the ego vehicle's middle to the object's cut a rectangle float[n, 2] around others?"""
    poses, start = frame.drive.poses[ids, frame.step], frame.drive.poses[0, frame.step, :2]
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])

    def turned(vector: Floats) -> Floats:
        return np.stack([cos * vector[..., 0] + sin * vector[..., 1], cos * vector[..., 1] - sin * vector[..., 0]], -1)

    line = turned(frame.drive.poses[item.id, frame.step, :2] - start)
    line = np.where(np.abs(line) < 1e-9, 1e-9, line)
    origin = turned(start - poses[:, :2])
    first, second = (-halves - origin) / line, (halves - origin) / line
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.asarray((enter < leave) & (leave > 0) & (enter < 1))
