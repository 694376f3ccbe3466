"""Senna (arXiv 2410.22313): the rules that turn a drive into words, and the words of its questions.

The rules are those of `senna_qa_utils.py` and of the nuScenes converter beside it, except where a docstring says so.
Positions are those of nuScenes' lidar frame: x right, y forward, metres, the ego vehicle at the origin.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivedistill.problems import InputError, Problem

SpeedPlan = Literal["KEEP", "ACCELERATE", "DECELERATE", "STOP"]
PathPlan = Literal["STRAIGHT", "RIGHT_CHANGE", "LEFT_CHANGE", "RIGHT_TURN", "LEFT_TURN"]
Navigation = Literal[
    "go straight and turn left", "go straight and turn right", "turn left", "turn right", "go straight"
]
DriveCommand = Literal["right", "left", "straight"]
Sector = Literal["front", "front left", "back left", "front right", "back right", "back"]

FUTURE_POINTS = 6
POINT_S = 0.5
"""Seconds between the points of a future path: three seconds at 2 Hz."""
STOP_SPEED, SPEED_CHANGE = 2.0, 3.0
"""m/s"""
SIDE_M, TURN_DEGREES = 4.0, 5.0
"""A path ends beside the lane from here on, and beyond that bearing it is a turn, not a change of lane."""
NAVIGATION_AHEAD_M, NAVIGATION_ASIDE_M = 20.0, 10.0
COMMAND_ASIDE_M = 2.0

SECTORS: tuple[tuple[Sector, float, float], ...] = (
    ("front", 55.0, 125.0),
    ("front left", 110.0, 180.0),
    ("back left", 165.0, 235.0),
    ("front right", 0.0, 70.0),
    ("back right", -55.0, 15.0),
    ("back", -145.0, -35.0),
)
"""Sector, first and last bearing in degrees, counter-clockwise from x (right). They overlap: the first one counts."""

VIEWS = {
    "CAM_FRONT": "FRONT VIEW",
    "CAM_FRONT_LEFT": "FRONT LEFT VIEW",
    "CAM_FRONT_RIGHT": "FRONT RIGHT VIEW",
    "CAM_BACK_LEFT": "BACK LEFT VIEW",
    "CAM_BACK_RIGHT": "BACK RIGHT VIEW",
    "CAM_BACK": "BACK VIEW",
}
"""Camera -> its words in a prompt, in the order in which a prompt names the views."""

META_ACTION_QUESTION = (
    "Your current speed is {speed} m/s, the navigation command is '{command}', based on the understanding of the "
    "driving scene and the navigation information, what is your plan for the next three seconds? Please answer your "
    "SPEED plan and your PATH plan. SPEED includes KEEP, ACCELERATE and DECELERATE, and STOP, PATH includes STRAIGHT, "
    "RIGHT_CHANGE, LEFT_CHANGE, RIGHT_TURN, LEFT_TURN. For example, a correct answer format is like 'KEEP, LEFT_CHANGE'."
)
"""As published; `speed` is in whole m/s."""


class MetaAction(NamedTuple):
    """What the ego vehicle does in the next three seconds; `str` gives Senna's answer `KEEP, STRAIGHT`."""

    speed: SpeedPlan
    path: PathPlan

    def __str__(self) -> str:
        return f"{self.speed}, {self.path}"


def meta_action(future: ArrayLike) -> MetaAction:
    """Senna's label of a future path.

    Speed: with the mean speeds v_1 ... v_5 between neighbouring points, STOP if all are below 2 m/s; otherwise the
    change v_5 - v_1 decides, 3 m/s or more either way. The first half second is not looked at, as in the original.

    Path: by where the last point lies. At most 4 m to the right and less than 4 m to the left is STRAIGHT (so -4.0
    itself is no longer straight, 4.0 still is, as in the original). Farther out it is a change of lane within 5 degrees
    of straight ahead and a turn beyond. A point to the left and behind is STRAIGHT, which no car reaches forward.

    Args:
        future: float[6, 2], positions in metres, x right and y forward, at 2 Hz, the first one half a second from now.

    Raises:
        InputError: Not six points, or one that is not finite.
    """
    points = _future(future)
    speeds = np.linalg.norm(np.diff(points, axis=0), axis=1) / POINT_S
    change = speeds[-1] - speeds[0]
    speed: SpeedPlan = "KEEP"
    if speeds.max() < STOP_SPEED:
        speed = "STOP"
    elif abs(change) >= SPEED_CHANGE:
        speed = "ACCELERATE" if change > 0 else "DECELERATE"
    return MetaAction(speed, _path_plan(*points[-1]))


def _future(future: ArrayLike) -> NDArray[np.float64]:
    """The checked points."""
    try:
        points = np.asarray(future, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(_bad_future(str(error))) from error
    if points.shape != (FUTURE_POINTS, 2):
        raise InputError(_bad_future(f"numbers of shape {points.shape}"))
    if not np.isfinite(points).all():
        raise InputError(_bad_future("a coordinate that is not finite"))
    return points


def _bad_future(found: str) -> Problem:
    expected = f"{FUTURE_POINTS} points (x right, y forward) in metres, one every {POINT_S} s"
    return Problem("data", "future path", expected, found, "leave out moments without three seconds of future")


def _path_plan(x: float, y: float) -> PathPlan:
    leftward = math.degrees(math.atan2(y, x)) - 90.0
    if x > SIDE_M and leftward <= -TURN_DEGREES:
        return "RIGHT_TURN"
    if x <= -SIDE_M and leftward >= TURN_DEGREES:
        return "LEFT_TURN"
    if abs(leftward) < TURN_DEGREES and (x > SIDE_M or x <= -SIDE_M):
        return "RIGHT_CHANGE" if x > 0 else "LEFT_CHANGE"
    return "STRAIGHT"


def navigation_command(end_x: float, end_y: float) -> Navigation:
    """The navigation command of a path that ends at (end_x, end_y) in metres, six seconds from now.

    Ten metres aside is a turn; twenty metres ahead make it a turn that comes later.

    The original takes its first coordinate for forward and its second for left, while its points lie in the lidar
    frame (x right, y forward): there, whoever drives ten metres straight ahead is told to turn left. Here the axes are
    those of the frame.
    """
    forward, left = end_y, -end_x
    if abs(left) < NAVIGATION_ASIDE_M:
        return "go straight"
    if forward >= NAVIGATION_AHEAD_M:
        return "go straight and turn left" if left > 0 else "go straight and turn right"
    return "turn left" if left > 0 else "turn right"


def drive_command(end_x: float) -> DriveCommand:
    """VAD's three-way command, from where the path lies three seconds from now: two metres aside or straight.

    Part of the published rules, though none of Senna's questions names it: the converter writes it beside them.
    """
    if abs(end_x) < COMMAND_ASIDE_M:
        return "straight"
    return "right" if end_x > 0 else "left"


def object_sector(x: float, y: float) -> Sector:
    """Where around the ego vehicle an object lies; sectors overlap and are tried in the original's order."""
    bearing = math.degrees(math.atan2(y, x))
    return next(name for name, first, last in SECTORS if (bearing - first) % 360 < last - first)


def meta_action_question(speed: float | None, command: Navigation | None) -> str:
    """Senna's planning question; what is not known (the original always knows both) is left out of its words.

    Args:
        speed: Of the ego vehicle in m/s; the fraction is cut off, as in the original.
        command: Where the navigation leads.
    """
    words = META_ACTION_QUESTION
    if command is None:
        words = words.replace(" the navigation command is '{command}',", "").replace(
            " and the navigation information", ""
        )
    if speed is None:
        words = words.removeprefix("Your current speed is {speed} m/s, ")
        words = words[0].upper() + words[1:]
    return words.format(speed=None if speed is None else int(speed), command=command)


def multi_view(question: str) -> str:
    """The question behind one `<image>` per view; the pictures must come in the order of `VIEWS`.

    The original's picture lists have another order than this prefix (front right before front left, back before back
    left), so that five of its six labels stand before somebody else's picture.
    """
    return "".join(f"<{words}>:\n<image>\n" for words in VIEWS.values()) + question
