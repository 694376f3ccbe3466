import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data.senna_rules import (
    SECTORS,
    VIEWS,
    MetaAction,
    PathPlan,
    SpeedPlan,
    drive_command,
    meta_action,
    meta_action_question,
    multi_view,
    navigation_command,
    object_sector,
)
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS

METRES = st.floats(-200, 200)


def ahead(*speeds):
    """Six points straight ahead; one speed per half second."""
    return np.stack([np.zeros(6), np.cumsum(speeds) * 0.5], axis=1)


def ending_at(x, y):
    """Six points on a straight line that ends at (x, y)."""
    return np.linspace((0, 0), (x, y), 7)[1:]


@pytest.mark.parametrize(
    ("speeds", "plan"),
    [
        ((5, 5, 5, 5, 5, 5), "KEEP"),
        ((4, 5, 6, 7, 7.5, 8), "ACCELERATE"),
        ((8, 7, 6, 5, 4, 3), "DECELERATE"),
        ((1.9,) * 6, "STOP"),
        ((2.0,) * 6, "KEEP"),
        ((9, 5, 6, 6, 7, 7.5), "KEEP"),  # the first half second is not looked at
        ((9, 1, 1, 1, 1, 1), "STOP"),
        ((5, 5, 6, 7, 7, 7.75), "KEEP"),
    ],
)
def test_speed_follows_the_published_rule(speeds, plan):
    assert meta_action(ahead(*speeds)) == (plan, "STRAIGHT")


@pytest.mark.parametrize(
    ("end", "plan"),
    [
        ((4.1, 15), "RIGHT_TURN"),
        ((4.0, 15), "STRAIGHT"),
        ((-4.0, 15), "LEFT_TURN"),
        ((-3.99, 15), "STRAIGHT"),
        ((4.5, 60), "RIGHT_CHANGE"),
        ((-4.5, 60), "LEFT_CHANGE"),
        ((-4.0, 60), "LEFT_CHANGE"),
        ((4.0, 60), "STRAIGHT"),
        ((2, 24), "STRAIGHT"),
        ((0, 50), "STRAIGHT"),
    ],
)
def test_path_follows_the_published_rule(end, plan):
    assert meta_action(ending_at(*end)).path == plan


@given(st.lists(st.tuples(METRES, st.floats(0, 200)), min_size=6, max_size=6))
def test_every_future_has_an_action_and_its_mirror_image_the_mirrored_one(points):
    action, mirrored = meta_action(points), meta_action([(-x, y) for x, y in points])
    assert action.speed in get_args(SpeedPlan) and action.path in get_args(PathPlan)
    assert mirrored.speed == action.speed
    if abs(points[-1][0]) != 4.0:
        swapped = {"RIGHT": "LEFT", "LEFT": "RIGHT"}
        side, _, what = action.path.partition("_")
        assert mirrored.path == (f"{swapped[side]}_{what}" if what else "STRAIGHT")


@pytest.mark.parametrize(
    "future",
    [
        ahead(*[5] * 6)[:5],
        np.zeros((7, 2)),
        np.zeros((6, 3)),
        np.full((6, 2), np.nan),
        [[0, math.inf]] * 6,
        None,
        "six",
    ],
)
def test_anything_but_six_finite_points_is_refused(future):
    with pytest.raises(InputError, match="6 points"):
        meta_action(future)


@pytest.mark.parametrize(
    ("end", "command"),
    [
        ((0, 50), "go straight"),  # the original says `turn left` here
        ((0, 10), "go straight"),
        ((9.9, 5), "go straight"),
        ((-10, 20), "go straight and turn left"),
        ((10, 20), "go straight and turn right"),
        ((-10, 19.9), "turn left"),
        ((10, 19.9), "turn right"),
    ],
)
def test_navigation_command_reads_x_as_right_and_y_as_forward(end, command):
    assert navigation_command(*end) == command


def test_drive_command_starts_two_metres_aside():
    assert [drive_command(x) for x in (-2, -1.9, 0, 1.9, 2)] == ["left", "straight", "straight", "straight", "right"]


@given(METRES, METRES)
def test_every_place_has_a_sector_that_holds_its_bearing(x, y):
    first, last = next((first, last) for name, first, last in SECTORS if name == object_sector(x, y))
    bearing = math.degrees(math.atan2(y, x))
    assert any(first <= bearing + turn < last for turn in (0, 360))


@pytest.mark.parametrize(
    ("bearing", "sector"),
    [
        (90, "front"),
        (55, "front"),
        (124, "front"),
        (126, "front left"),
        (170, "front left"),
        (-179, "back left"),
        (-130, "back left"),
        (-120, "back"),
        (-90, "back"),
        (-60, "back"),
        (-40, "back right"),
        (-1, "back right"),
        (1, "front right"),
    ],
)
def test_sectors_are_tried_in_the_published_order(bearing, sector):
    angle = math.radians(bearing)
    assert object_sector(math.cos(angle), math.sin(angle)) == sector


def test_words_are_the_published_ones():
    question = meta_action_question(7.9, "turn left")
    assert question.startswith("Your current speed is 7 m/s, the navigation command is 'turn left', based on")
    assert str(MetaAction("KEEP", "LEFT_CHANGE")) in question
    text = multi_view("What?")
    assert text.startswith(
        "<FRONT VIEW>:\n<image>\n<FRONT LEFT VIEW>:\n<image>\n<FRONT RIGHT VIEW>:\n<image>\n<BACK LEFT"
    )
    assert text.endswith("<BACK RIGHT VIEW>:\n<image>\n<BACK VIEW>:\n<image>\nWhat?")
    assert text.count("<image>") == 6 and set(VIEWS) == set(CAMERAS)
    assert all(camera == f"CAM_{words.removesuffix(' VIEW').replace(' ', '_')}" for camera, words in VIEWS.items())


def test_what_is_not_known_is_left_out_of_the_question():
    rest = meta_action_question(7.9, "turn left").partition("what is your plan")[2]
    starts = {
        (7.9, None): "Your current speed is 7 m/s, based on the understanding of the driving scene, ",
        (
            None,
            "turn left",
        ): "The navigation command is 'turn left', based on the understanding of the driving scene and "
        "the navigation information, ",
        (None, None): "Based on the understanding of the driving scene, ",
    }
    assert {known: meta_action_question(*known) for known in starts} == {
        known: f"{start}what is your plan{rest}" for known, start in starts.items()
    }
