"""A key frame as Senna's converter writes it: planning, vulnerable road users, what the objects around will do.

Three of Senna's six kinds of question follow from ground truth and are written here; the other three are answered by a
large model in the original. The words are those of Senna's converter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from drivedistill.data.senna_rules import (
    FUTURE_POINTS,
    POINT_S,
    VIEWS,
    Sector,
    meta_action,
    meta_action_question,
    multi_view,
    navigation_command,
    object_sector,
)
from drivedistill.world.catalogue import KINDS
from drivedistill.world.scene import STEP_S, STEPS, Drive
from drivedistill.world.track import Floats

POINT_STEPS = round(POINT_S / STEP_S)
NAVIGATION_POINTS = 12
"""The navigation command looks six seconds ahead."""
ROAD_USER_M = 20.0
SIDE_M = 2.0
"""A road user is called to the left or right from here on."""
VIEW_M: dict[Sector, float] = {
    "front": 40.0,
    "front left": 20.0,
    "front right": 20.0,
    "back left": 20.0,
    "back right": 20.0,
    "back": 20.0,
}
"""Sector, which is also the name of a view -> how far away an object may be to be asked about."""
CLASSES = {"cyclist": "bicycle", "motorcyclist": "motorcycle"}
"""nuScenes' names where they are not the category of CODA-LM."""
ROAD_USERS = ("bicycle", "motorcycle", "pedestrian")

ROAD_USER_QUESTION = (
    "Do you see any vulnerable road users within 20 meters ahead of you, such as cyclists, motorcyclists, or "
    "pedestrians?"
)
NO_ROAD_USER = "No, I don't see any vulnerable road users ahead of me, such as bicycles, motorcycles, or pedestrians."
INTENTIONS = (
    "You are driving, I will now provide you with the location and velocity information of dynamic objects in the "
    "{view} view image. Please predict their future driving behaviors, which can be divided into SPEED decisions and "
    "PATH decisions. SPEED includes KEEP, ACCELERATE, DECELERATE, and STOP, while PATH includes STRAIGHT, "
    "RIGHT_CHANGE, LEFT_CHANGE, RIGHT_TURN, and LEFT_TURN."
    "I will now provide you with the position and velocity information of the dynamic objects: \n"
    "{objects}"
    "Please predict the future driving behaviors of these objects based on the {view} view image. "
    "For example, a well-formatted answer should be like:\n"
    "Object 1: KEEP, STRAIGHT\nObject 2: DECELERATE, RIGHT_TURN\nObject 3: ACCELERATE, LEFT_CHANGE\n"
)


class _Neighbour(NamedTuple):
    """A visible road user in the frame of the published files."""

    row: int
    name: str
    right: float
    ahead: float
    """metres"""
    sector: Sector

    @property
    def distance(self) -> float:
        return float(np.hypot(self.right, self.ahead))


def senna_records(
    drive: Drive,
    step: int,
    token: str,
    previous: str,
    following: str,
    scene_token: str,
    images: Mapping[str, str],
    *,
    visible: Collection[int],
) -> list[dict[str, Any]]:
    """The records of one key frame: the meta-action, vulnerable road users, and the intentions of objects per view.

    The pictures of a record come in the order in which its prompt names the views. (The published converter writes
    two different orders.) The plan follows from the rounded path that is written beside it. Only visible objects are
    spoken of.

    Args:
        drive: The log.
        step: The key frame.
        token: Its name.
        previous: Name of the key frame before it in the scene; empty if there is none.
        following: Name of the one after it.
        scene_token: Name of the scene.
        images: Camera -> path relative to the data root, all six.
        visible: Ids of the actors that can be seen.

    Returns:
        Records in the published LLaVA form. None at all where the log ends within six seconds, as in the original.
    """
    if step + NAVIGATION_POINTS * POINT_STEPS >= STEPS:
        return []
    offsets = _offsets(drive, 0, step)
    pictures = {"image": images["CAM_FRONT"], "images": [images[camera] for camera in VIEWS]}
    names = {"prev": previous, "next": following, "scene_token": scene_token}
    path = {"fut_valid_flag": True, "ego_fut_trajs": json.dumps(offsets[:FUTURE_POINTS].tolist())}
    frame: dict[str, Any] = {"token": token, **pictures, **names, **path}
    return [frame | {"conversations": talk} for talk in _conversations(drive, step, offsets, visible)]


def future_path(drive: Drive, step: int) -> Floats:
    """float[up to 12, 2]: where the ego vehicle is 0.5, 1, ... 6 s after `step`; x right, y forward, to the millimetre."""
    return np.round(np.cumsum(_offsets(drive, 0, step), axis=0), 3) + 0.0


def _conversations(
    drive: Drive, step: int, offsets: Floats, visible: Collection[int]
) -> Iterator[list[dict[str, str]]]:
    """Question and answer of each record: the plan, the road users, the intentions per view."""
    neighbours = _neighbours(drive, step, visible)
    yield _plan(float(drive.speeds[0, step]), offsets)
    yield _road_users(neighbours)
    for view, reach in VIEW_M.items():
        near = [one for one in neighbours if one.sector == view and one.distance < reach]
        if near:
            yield _intentions(drive, step, view, near)


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": multi_view(question)}, {"from": "gpt", "value": answer}]


def _offsets(drive: Drive, row: int, step: int) -> Floats:
    """float[up to 12, 2]: steps (x right, y forward) at 2 Hz in the frame of `row` at `step`, to the millimetre."""
    poses = drive.poses[row, step::POINT_STEPS][: NAVIGATION_POINTS + 1]
    east, north = np.diff(poses[:, :2], axis=0).T
    cos, sin = np.cos(poses[0, 2]), np.sin(poses[0, 2])
    return np.round(np.stack([sin * east - cos * north, cos * east + sin * north], axis=1), 3) + 0.0


def _plan(speed: float, offsets: Floats) -> list[dict[str, str]]:
    """The plan for three seconds, given where the navigation leads in six."""
    path = np.cumsum(offsets, axis=0)
    question = meta_action_question(speed, navigation_command(*path[-1]))
    return _conversation(question, f"{meta_action(path[:FUTURE_POINTS])}\n")


def _neighbours(drive: Drive, step: int, visible: Collection[int]) -> list[_Neighbour]:
    """Visible actors that are no things, the nearest first."""
    found = []
    for actor in drive.scene.actors:
        kind = KINDS[actor.kind]
        if actor.id in visible and kind.family not in ("debris", "works"):
            forward, left, _ = drive.seen_from_ego(actor.id, step)
            name = CLASSES.get(actor.kind, {"person": "pedestrian", "animal": "animal"}.get(kind.family, kind.coda))
            found.append(_Neighbour(actor.id, name, -left, forward, object_sector(-left, forward)))
    return sorted(found, key=lambda one: (one.distance, one.row))


def _road_users(neighbours: list[_Neighbour]) -> list[dict[str, str]]:
    """Is there anybody within twenty metres ahead who is easily hurt?"""
    near = [
        f"a {one.name} located {int(one.ahead)} meters ahead of me{_aside(one.right)}"
        for one in neighbours
        if one.name in ROAD_USERS and one.sector == "front" and one.distance < ROAD_USER_M
    ]
    return _conversation(ROAD_USER_QUESTION, f"Yes, I see {', and '.join(near)}." if near else NO_ROAD_USER)


def _aside(right: float) -> str:
    if abs(right) < SIDE_M:
        return ""
    return f" and {int(abs(right))} meters to the {'right' if right > 0 else 'left'}"


def _intentions(drive: Drive, step: int, view: Sector, near: list[_Neighbour]) -> list[dict[str, str]]:
    """What the objects of one view will do, by the rule that labels the ego vehicle."""
    objects, plans = "", ""
    for number, one in enumerate(near, start=1):
        along = f"{int(abs(one.ahead))} meters {'ahead' if one.ahead >= 0 else 'behind'}"
        aside = f"{int(abs(one.right))} meters to the {'right' if one.right >= 0 else 'left'}"
        speed = int(drive.speeds[one.row, step])
        objects += f"Object {number}: {one.name}, {along}, {aside}, speed of {speed} m/s.\n"
        plan = meta_action(np.cumsum(_offsets(drive, one.row, step), axis=0)[:FUTURE_POINTS])
        plans += f"Object {number}: {plan}\n"
    return _conversation(INTENTIONS.format(view=view, objects=objects), plans)
