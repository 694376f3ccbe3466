"""Behavior: how the ego vehicle steers and how fast it drives, in the words of DriveLM's closed list."""

from __future__ import annotations

import numpy as np

from drivedistill.world.action import LOOK_AHEAD_S, later
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.motion import STILL
from drivedistill.world.questions.perception import OPTIONS_SHARE
from drivedistill.world.questions.question import Question

STEERING = {
    "go straight": "going straight",
    "turn left": "steering to the left",
    "turn right": "steering to the right",
    "change to the left lane": "slightly steering to the left",
    "change to the right lane": "slightly steering to the right",
}
SPEEDS = (
    (0.8, 4.5, "driving slowly"),
    (5.5, 11.0, "driving with normal speed"),
    (12.5, 18.0, "driving fast"),
    (20.0, np.inf, "driving very fast"),
)
"""m/s from, to; what lies between two of them is not asked"""
STRAIGHT_RAD = 0.2
"""Who turns more than this in three seconds does not go straight, whatever the lane does."""


def behavior(frame: Frame) -> list[Question]:
    """The question of DriveLM, where the answer can be told from the pictures."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 16])
    options = bool(rng.random() < OPTIONS_SHARE)
    answer = _answer(frame)
    if answer is None:
        return []
    text = "Predict the behavior of the ego vehicle."
    return [Question("behavior", "behavior", text, answer, tags=(0,), closed=True, options=options)]


def _answer(frame: Frame) -> str | None:
    drive, step, lateral = frame.drive, frame.step, frame.action.lateral
    if frame.speed < STILL:
        stays = drive.speeds[0, later(step, 2.0)] < STILL
        return "The ego vehicle is going straight. The ego vehicle is not moving." if stays else None
    turned = float(drive.poses[0, later(step, LOOK_AHEAD_S), 2] - drive.poses[0, step, 2])
    if lateral == "go straight" and abs(turned) > STRAIGHT_RAD:
        return None
    if lateral.startswith("turn") and not drive.turning[step]:
        return None  # nobody sees from outside where somebody wants to go
    if lateral.startswith("change") and not frame.reason_shown:
        return None
    speed = next((words for low, high, words in SPEEDS if low <= frame.speed < high), None)
    return speed and f"The ego vehicle is {STEERING[lateral]}. The ego vehicle is {speed}."
