import json
import math
import re
from typing import get_args

import numpy as np
import pytest

from drivedistill.data.senna_rules import VIEWS, PathPlan, SpeedPlan, meta_action, navigation_command
from drivedistill.world.dataset.senna import senna_records
from drivedistill.world.scene import (
    STEP_S,
    STEPS,
    Actor,
    Conditions,
    Decision,
    Drive,
    Road,
    Scene,
)
from drivedistill.world.track import lay

IMAGES = {camera: f"samples/{camera}/1.jpg" for camera in VIEWS}
FIELDS = {"token", "image", "images", "prev", "next", "scene_token", "fut_valid_flag", "ego_fut_trajs", "conversations"}
"""Of a published record."""


def driven(*movers, kinds=(), yaw=0.0, speed=10.0, bend=0.0):
    """A drive at constant speeds: the ego from the origin, movers as (x forward, y left, speed) in its first frame."""
    time = np.arange(STEPS) * STEP_S
    poses = np.zeros((len(movers) + 1, STEPS, 3))
    heading = yaw + bend * time
    poses[0, :, 2] = heading
    poses[0, 1:, 0] = np.cumsum(np.cos(heading[:-1])) * speed * STEP_S
    poses[0, 1:, 1] = np.cumsum(np.sin(heading[:-1])) * speed * STEP_S
    for row, (x, y, pace) in enumerate(movers, start=1):
        ahead = x + pace * time
        poses[row, :, 0] = math.cos(yaw) * ahead - math.sin(yaw) * y
        poses[row, :, 1] = math.sin(yaw) * ahead + math.cos(yaw) * y
        poses[row, :, 2] = yaw
    speeds = np.tile(np.array([speed, *(mover[2] for mover in movers)], float)[:, None], STEPS)
    actors = tuple(Actor(row, kind, "red", row, "traffic") for row, kind in enumerate(kinds, start=1))
    road = Road("urban", lay([(400.0, 0.0)]), 2, 1, 14.0)
    scene = Scene("made", "made", 0, False, Conditions("clear", "day", False), road, actors)
    still = np.zeros_like(speeds)
    return Drive(
        scene,
        poses,
        speeds,
        still,
        still.astype(np.int8),
        np.zeros(STEPS),
        np.zeros(STEPS, np.int8),
        (None,) * STEPS,
        (Decision("free"),) * STEPS,
    )


def records(drive, step=0, visible=(1, 2, 3, 4, 5)):
    return senna_records(drive, step, "t", "p", "n", "s", IMAGES, visible=visible)


def asked(drive, what, **more):
    """Answers to the questions that contain `what`."""
    turns = [record["conversations"] for record in records(drive, **more)]
    return [answer["value"] for question, answer in turns if what in question["value"]]


def test_record_has_the_published_fields_and_pictures_in_the_order_of_the_prompt():
    for record in records(driven((15, 0, 5), (10, 3, 1), kinds=("sedan", "pedestrian"))):
        assert set(record) == FIELDS
        assert (record["token"], record["prev"], record["next"], record["scene_token"]) == ("t", "p", "n", "s")
        assert record["fut_valid_flag"] is True and isinstance(record["ego_fut_trajs"], str)
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
        prompt = record["conversations"][0]["value"]
        named = [f"CAM_{view.replace(' ', '_')}" for view in re.findall("<([A-Z ]+) VIEW>:\n<image>", prompt)]
        assert [path.split("/")[1] for path in record["images"]] == named == list(VIEWS)
        assert record["image"] == record["images"][0]
    json.dumps(records(driven()))


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("bend", [0.0, 0.12, -0.12])
def test_plan_and_navigation_follow_from_the_path_whatever_the_heading(yaw, bend):
    drive = driven(yaw=yaw, bend=bend)
    first = records(drive, 20)[0]
    path = np.cumsum(json.loads(first["ego_fut_trajs"]), axis=0)
    assert path.shape == (6, 2)
    assert np.linalg.norm(path[0]) == pytest.approx(5, abs=0.01)  # half a second at 10 m/s
    assert path[-1, 1] > 20 and np.sign(round(path[-1, 0])) == -np.sign(bend)  # a bend to the left ends at x < 0
    question, answer = (turn["value"] for turn in first["conversations"])
    assert answer == f"{meta_action(path)}\n"
    side = {0.0: "go straight", 0.12: "go straight and turn left", -0.12: "go straight and turn right"}
    assert f"Your current speed is 10 m/s, the navigation command is '{side[bend]}'" in question


def test_navigation_looks_six_seconds_ahead():
    drive = driven(bend=0.1)
    x, y = np.cumsum(json.loads(records(drive)[0]["ego_fut_trajs"]), axis=0)[-1]
    assert navigation_command(x, y) == "go straight"
    assert "'go straight and turn left'" in records(drive)[0]["conversations"][0]["value"]


def test_road_users_are_counted_ahead_and_near():
    kinds = ("pedestrian", "cyclist", "child", "sedan", "motorcyclist")
    drive = driven((8, 3, 1), (15, -1, 3), (25, 0, 1), (10, 0, 5), (-9, 0, 5), kinds=kinds)
    question = "vulnerable road users"
    assert asked(drive, question) == [
        "Yes, I see a pedestrian located 8 meters ahead of me and 3 meters to the left, "
        "and a bicycle located 15 meters ahead of me."
    ]
    unseen = asked(drive, question, visible=(3, 4, 5))
    assert unseen == [
        "No, I don't see any vulnerable road users ahead of me, such as bicycles, motorcycles, or pedestrians."
    ]


def test_intentions_are_asked_per_view_within_its_range():
    drive = driven(
        (35, 0, 12), (-25, 0, 10), (-15, 1, 9), (60, 0, 3), (10, 1, 0), kinds=("truck", *["SUV"] * 3, "rock")
    )
    found = {
        re.search("in the ([a-z ]+) view image", turn[0]["value"])[1]: turn
        for turn in (record["conversations"] for record in records(drive))
        if "Object 1" in turn[0]["value"]
    }
    assert set(found) == {"front", "back"}
    question, answer = (turn["value"] for turn in found["front"])
    assert "Object 1: truck, 35 meters ahead, 0 meters to the right, speed of 12 m/s.\n" in question
    assert "truck" in question and "Object 2: car" not in question and answer == "Object 1: KEEP, STRAIGHT\n"
    assert "Object 1: car, 15 meters behind, 1 meters to the left, speed of 9 m/s.\n" in found["back"][0]["value"]
    words = re.findall(r"Object \d: (\w+), (\w+)\n", answer)
    assert words and all(speed in get_args(SpeedPlan) and path in get_args(PathPlan) for speed, path in words)


def test_an_object_is_labelled_in_its_own_frame():
    drive = driven((20, 5, 0.0), kinds=("sedan",))
    drive.poses[1, :, 2] = -math.pi / 2  # it crosses from left to right
    drive.poses[1, :, 1] = 5 - 6.0 * np.arange(STEPS) * STEP_S
    drive.speeds[1] = 6.0
    assert asked(drive, "Object 1: car") == ["Object 1: KEEP, STRAIGHT\n"]


def test_a_step_without_six_seconds_of_log_gives_no_record():
    drive = driven()
    assert records(drive, STEPS - 61) and not records(drive, STEPS - 60)
