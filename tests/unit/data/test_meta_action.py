from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data import READERS
from drivedistill.data.meta_action import PATHS, SPEEDS, free_text, named, said, strict
from drivedistill.data.senna_rules import MetaAction
from drivedistill.world.questions.behavior import SPEEDS as DRIVEN
from drivedistill.world.questions.behavior import STEERING
from drivedistill.world.questions.words import SPEED

ACTIONS = [MetaAction(*pair) for pair in product(SPEEDS, PATHS)]


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_every_parser_reads_every_label(action):
    assert strict(str(action)) == free_text(str(action)) == action
    assert named(str(action)) == set(action)
    assert free_text(f"{action.speed}, {action.path}".lower()) == action


@pytest.mark.parametrize(
    "answer", ["KEEP, STRAIGHT\n", "KEEP,STRAIGHT", "KEEP, STRAIGHT. Because", "KEEP,\n STRAIGHT, LEFT_TURN"]
)
def test_strict_reads_what_stands_at_the_start(answer):
    assert strict(answer) == ("KEEP", "STRAIGHT")


@pytest.mark.parametrize(
    "answer",
    ["", "KEEP", "STRAIGHT, KEEP", "keep, straight", " KEEP, STRAIGHT", "The plan is KEEP, STRAIGHT", "KEEP, STRAIGHTEN",
     "KEEP STRAIGHT", "KEEP, LEFT", "KEEP, ACCELERATE, STRAIGHT", "KEEP, RIGHT_TURN_LANE"],
)  # fmt: skip
def test_strict_reads_nothing_else(answer):
    assert strict(answer) is None


def test_published_rule_lets_an_answer_name_everything():
    assert named(", ".join((*SPEEDS, *PATHS))) == {*SPEEDS, *PATHS}
    assert named("I would KEEP on, then STOP") == {"KEEP", "STOP"} and named("keep, straight") == set()


PHRASES = {
    # speed alone
    "The ego vehicle should stop and wait.": "STOP, STRAIGHT",
    "Come to a complete stop.": "STOP, STRAIGHT",
    "Remain stopped.": "STOP, STRAIGHT",
    "The action is to remain stationary.": "STOP, STRAIGHT",
    "The car stays at a standstill.": None,
    "We are at a standstill.": "STOP, STRAIGHT",
    "Brake gently to a stop.": "STOP, STRAIGHT",
    "Slow down to a stop.": "STOP, STRAIGHT",
    "Slow down and then stop": "STOP, STRAIGHT",
    "Pull over.": "STOP, STRAIGHT",
    "The ego vehicle is not moving.": "STOP, STRAIGHT",
    "You shouldn't proceed.": "STOP, STRAIGHT",
    "Do not enter the junction.": "STOP, STRAIGHT",
    "Slow down.": "DECELERATE, STRAIGHT",
    "The ego car is slowing.": "DECELERATE, STRAIGHT",
    "Reduce your current speed.": "DECELERATE, STRAIGHT",
    "Decelerate gradually without braking.": "DECELERATE, STRAIGHT",
    "Brake hard!": "DECELERATE, STRAIGHT",
    "The ego vehicle should give way.": "DECELERATE, STRAIGHT",
    "Yield to the pedestrian.": "DECELERATE, STRAIGHT",
    "Speed up.": "ACCELERATE, STRAIGHT",
    "Increase speed.": "ACCELERATE, STRAIGHT",
    "The ego vehicle starts moving.": "ACCELERATE, STRAIGHT",
    "Move off with care and be ready to stop again.": "ACCELERATE, STRAIGHT",
    "Keep going at the same speed.": "KEEP, STRAIGHT",
    "Maintain its current speed.": "KEEP, STRAIGHT",
    "Maintain a low speed.": "KEEP, STRAIGHT",
    "Drive at a slow speed.": "KEEP, STRAIGHT",
    "The ego car should go on with care.": "KEEP, STRAIGHT",
    "Continue.": "KEEP, STRAIGHT",
    # paths
    "Go straight.": "KEEP, STRAIGHT",
    "Turn left.": "KEEP, LEFT_TURN",
    "Turning to the right": "KEEP, RIGHT_TURN",
    "Make a sharp right turn.": "KEEP, RIGHT_TURN",
    "Follow the bend to the left and slow down.": "DECELERATE, LEFT_TURN",
    "Go straight and turn left": "KEEP, LEFT_TURN",
    "Change to the left lane.": "KEEP, LEFT_CHANGE",
    "Changing lanes to the right": "KEEP, RIGHT_CHANGE",
    "Merge into the left lane and accelerate.": "ACCELERATE, LEFT_CHANGE",
    "Steer into the right lane.": "KEEP, RIGHT_CHANGE",
    "Overtake the bus by moving to the left.": "KEEP, LEFT_CHANGE",
    "Brake gently to a stop, slightly offset to the left.": "STOP, STRAIGHT",
    "Stay in its lane.": "KEEP, STRAIGHT",
    # both
    "The ego vehicle is slowing down and turning left": "DECELERATE, LEFT_TURN",
    "The ego vehicle should change to the right lane and keep going at the same speed.": "KEEP, RIGHT_CHANGE",
    "accelerate, left change": "ACCELERATE, LEFT_CHANGE",
    "The ego vehicle is going straight. The ego vehicle is driving very fast.": "KEEP, STRAIGHT",
    "The ego vehicle is slightly steering to the right. The ego vehicle is driving slowly.": "KEEP, RIGHT_CHANGE",
    # denials
    "Do not stop.": "KEEP, STRAIGHT",
    "Don't turn left.": "KEEP, STRAIGHT",
    "There is no need to brake.": "KEEP, STRAIGHT",
    "No need to slow down.": "KEEP, STRAIGHT",
    "Do not stop; turn left.": "KEEP, LEFT_TURN",
    "Do not stop or slow down.": "KEEP, STRAIGHT",
    "Don't change lanes.": "KEEP, STRAIGHT",
    "Brake, but don't change lanes.": "DECELERATE, STRAIGHT",
    "The ego vehicle should not turn left or right.": "KEEP, STRAIGHT",
    "There is no reason to stop, so continue.": "KEEP, STRAIGHT",
    "I will not turn left but right.": "KEEP, RIGHT_TURN",
    "Stop, and do not change to the left lane, but to the right lane.": "STOP, RIGHT_CHANGE",
    "Do not honk.": None,
    "No car is stopping.": None,
    "The car ahead does not stop.": None,
    "It does not rain.": None,
    "Without braking or evading, the ego car would hit it in about 4 seconds.": None,
    "It leaves the ego car no room to accelerate.": None,
    "No need to slow down, keep going at the same speed.": "KEEP, STRAIGHT",
    "Keep going straight without turning right.": "KEEP, STRAIGHT",
    "Slow down, but do not stop.": "DECELERATE, STRAIGHT",
    "Go straight instead of turning left.": "KEEP, STRAIGHT",
    "Never accelerate; wait.": "STOP, STRAIGHT",
    # reasons, purposes, conditions
    "Go straight and accelerate, because the bus stops.": "ACCELERATE, STRAIGHT",
    "The ego vehicle should slow down, because it will turn left at the junction and a car brakes.": "DECELERATE, STRAIGHT",
    "Because the traffic light is red, the ego car should brake to a stop.": "STOP, STRAIGHT",
    "Slow down to avoid having to stop.": "DECELERATE, STRAIGHT",
    "If the light turns red, the ego car should stop.": "STOP, STRAIGHT",
    "Keep going and stop if necessary.": "KEEP, STRAIGHT",
    "Slow down and be ready to stop.": "DECELERATE, STRAIGHT",
    "It should keep enough distance to stop.": None,
    "Wait until the crossing road is free and turning is allowed.": "STOP, STRAIGHT",
    # others
    "The car ahead is slowing down and turning left.": None,
    "There is a stop sign.": None,
    "A pedestrian is waiting at the bus stop.": None,
    "Follow the vehicle turning left.": None,
    "Keep going straight past the stopped truck.": "KEEP, STRAIGHT",
    "A cyclist is stopping. The ego car should slow down.": "DECELERATE, STRAIGHT",
    "The van brakes, so we should slow down and change to the left lane.": "DECELERATE, LEFT_CHANGE",
    # several sentences
    "Go straight and keep going at the same speed. Because the road is wet, it should keep a larger distance and brake early.":
        "KEEP, STRAIGHT",
    "The ego car should continue straight. It should slow down at the crossing.": "DECELERATE, STRAIGHT",
    "Because the road is slippery, it should avoid sudden steering and braking.": "KEEP, STRAIGHT",
    "Accelerate. Change to the left lane.": "ACCELERATE, LEFT_CHANGE",
    # nothing
    "": None,
    "B": None,
    "Red light.": None,
    "A white sedan to the left of the ego car.": None,
    "Maintain a safe distance.": None,
    "Straightforward.": None,
}  # fmt: skip


@pytest.mark.parametrize("text", PHRASES)
def test_plain_english(text):
    found = free_text(text)
    assert (str(found) if found else None) == PHRASES[text]


def test_table_of_phrases_is_long_and_knows_every_action_alone():
    assert len(PHRASES) >= 60
    assert {part for answer in PHRASES.values() if answer for part in answer.split(", ")} == {*SPEEDS, *PATHS}


def test_what_is_not_said_stays_open():
    assert (
        said("Turn left.") == (None, "LEFT_TURN")
        and said("Brake.") == ("DECELERATE", None)
        and said("Yes.") == (None, None)
    )


def test_sentences_of_the_embedded_world():
    """Its behavior, in DriveLM's closed list, and its plans."""
    paths = dict(zip(STEERING, ("STRAIGHT", "LEFT_TURN", "RIGHT_TURN", "LEFT_CHANGE", "RIGHT_CHANGE"), strict=True))
    for (lateral, steering), (*_, driven) in product(STEERING.items(), DRIVEN):
        assert free_text(f"The ego vehicle is {steering}. The ego vehicle is {driven}.") == ("KEEP", paths[lateral])
    speeds = {"keep speed": "KEEP", "accelerate": "ACCELERATE", "decelerate": "DECELERATE"}
    for lateral, (longitudinal, words) in product(paths, SPEED.items()):
        plan = f"The ego vehicle should {lateral} and {words}, because the traffic light is red."
        assert free_text(plan) == (speeds[longitudinal], paths[lateral])
        assert free_text(f"{lateral.capitalize()} and brake to a stop.") == ("STOP", paths[lateral])


@pytest.mark.drivelm
def test_behavior_of_the_public_sample_is_read_and_matches_its_words(drivelm_sample):
    answers = {
        item.answer for item in READERS["drivelm"](drivelm_sample, "train", regime="regular") if item.task == "behavior"
    }
    assert len(answers) >= 4
    for answer in answers:
        expected = "STOP, STRAIGHT" if "not moving" in answer else "KEEP, STRAIGHT"
        assert str(free_text(answer)) == expected


@pytest.mark.drivelm
def test_every_action_of_the_public_sample_is_read(drivelm_sample):
    asked = "What actions could the ego vehicle take based on"
    answers = [
        item.answer
        for item in READERS["drivelm"](drivelm_sample, "train", regime="regular")
        if item.question.startswith(asked)
    ]
    assert len(answers) > 20
    for answer in answers:
        expected = (
            "STOP"
            if "stationary" in answer or "to a stop" in answer
            else "KEEP"
            if "same speed" in answer
            else "DECELERATE"
        )
        assert said(answer).speed == expected, answer


@given(st.text())
def test_any_text_can_be_read(text):
    assert free_text(text) is None or free_text(text) in ACTIONS


@pytest.mark.parametrize(
    ("answer", "speed"),
    [
        ("not turning but stopping", "STOP"),
        ("not accelerating but braking", "DECELERATE"),
        ("It is not speeding up but slowing down.", "DECELERATE"),
        ("avoid steering and braking", "KEEP"),
    ],
)
def test_what_follows_but_is_not_denied(answer, speed):
    assert free_text(answer) == (speed, "STRAIGHT")
