"""Primitives against the logged future."""

import numpy as np
import pytest
from made import LANE, Made, straight_drive
from second_look import Second

from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.questions.whatif import ACCELERATE, KEEP, PRIMITIVES, what_if
from drivedistill.world.scene import STEPS, Junction
from drivedistill.world.track import lay
from drivedistill.world.views import Views

WORDS = [primitive.words for primitive in PRIMITIVES]


def outcome(actor, **options):
    result = what_if(straight_drive([actor], **options), 0)
    return {words: result.collides(index, 1) for index, words in enumerate(WORDS)}, result


def test_a_standing_car_ahead_is_hit_unless_one_brakes_or_changes_lanes():
    hits, result = outcome(Made("sedan", 30, LANE), speed=10)
    assert [words for words in WORDS if hits[words]] == ["keep going at the same speed", "accelerate and go straight"]
    assert result.touch[KEEP, 1] == pytest.approx((30 - 2.35 - 2.3) / 10, abs=0.11)
    assert result.in_path(1) is True and result.colliding(1) == [KEEP, ACCELERATE]


def test_a_leader_of_the_same_speed_is_on_the_way_but_not_hit():
    hits, result = outcome(Made("sedan", 25, LANE, 10.0), speed=10)
    assert hits["keep going at the same speed"] is False and result.in_path(1) is True


def test_followers_react():
    hits, result = outcome(Made("sedan", -12, LANE, 14.0), speed=10)
    assert not any(hits[words] for words in WORDS[:4]) and result.in_path(1) is False


def test_a_car_beside_blocks_its_lane_only():
    hits, _ = outcome(Made("sedan", 1, LANE - 3.5, 10.0), speed=10)
    assert [words for words in WORDS if hits[words]] == ["change to the right lane"]


def test_close_is_neither():
    hits, result = outcome(Made("sedan", 30, LANE - 1.9 - 0.2, 0.0), speed=10)
    assert hits["keep going at the same speed"] is None
    assert result.in_path(1) is None and result.colliding(1) is None


def test_somebody_who_walks_into_the_way_is_on_it():
    _, result = outcome(Made("pedestrian", 25, -6.5, 1.5, yaw=np.pi / 2, role="crosser"), speed=10)
    assert result.in_path(1) is True
    _, result = outcome(Made("pedestrian", 25, -6.5, 1.5, role="walking"), speed=10)
    assert result.in_path(1) is False


def test_lanes_that_are_not_there():
    right = what_if(straight_drive([], d=-5.25), 0)
    assert right.possible.tolist() == [True] * 5 + [False] and right.lawful == (True,) * 5 + (False,)
    left = what_if(straight_drive([]), 0)
    assert left.possible.all() and left.lawful[4] is False, "the lane to the left is for oncoming traffic"
    assert not what_if(straight_drive([], speed=1.0), 0).possible[4:].any()
    assert what_if(straight_drive([], d=-3.5), 0) is None, "between lanes nothing is straight on"


def test_red_lights_and_stop_signs_forbid_to_pass():
    def lawful(control, signal, distance=20.0):
        junction = Junction(distance + 2.35 + 9.5, lay([(80, 0.0)], start=-40), ("left", "right"), control)
        return what_if(straight_drive([], junction=junction, signal=signal), 0).lawful[:4]

    assert lawful("lights", "red") == (False, False, False, True)
    assert lawful("lights", "green") == (True, True, True, True)
    assert lawful("stop sign", None) == (False, False, False, True)
    assert lawful("priority road", None) == (True, True, True, True)
    assert lawful("lights", "red", distance=80.0) == (True, True, True, True)


def test_a_primitive_that_touches_comes_close_first():
    for seed in range(6):
        drive = drive_scene("queue", seed)
        for step in range(0, STEPS - 60, 12) if drive else ():
            result = what_if(drive, step)
            if result is not None:
                assert (result.near <= result.touch).all()
                assert not result.on_way[0][~result.on_way[1]].any()


def test_agrees_with_points_sampled_on_footprints():
    checked = 0
    for kind, seed in (("lead_brake", 3), ("cut_in", 1), ("crosswalk", 2), ("wrong_way", 5), ("turn_right", 4)):
        drive = drive_scene(kind, seed)
        result = what_if(drive, 20) if drive else None
        if result is None:
            continue
        second = Second(drive, 20, Views({}, {"CAM_FRONT": np.zeros((4, 4), np.int32)}))
        for actor in second.actors:
            for index, primitive in enumerate(PRIMITIVES):
                hit = result.collides(index, actor)
                margin = 0.15 if hit else 0.0
                if hit is not None:
                    assert second.hits(primitive.acceleration, primitive.lanes, actor, margin) == hit
                    checked += bool(hit)
    assert checked > 5
