"""Questions about made and real key frames."""

import re
from collections import Counter

import numpy as np
import pytest
from made import LANE, Made, boxes, dimmed, straight_drive
from recheck import ORDER, TAG, contradictions

from drivedistill.data.drivelm import read
from drivedistill.data.drivelm_challenge import BEHAVIORS, extract_challenge, to_multiple_choice
from drivedistill.records import CAMERAS, write_json
from drivedistill.world.action import action
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.questions.all import frame_questions
from drivedistill.world.questions.frame import binding, key_object_infos, look
from drivedistill.world.questions.words import several
from drivedistill.world.scene import LANE_M, STEP_S, STEPS, Decision, Head

SEVERAL_STEPS = {
    "closer", "beside", "ahead", "faster", "same_direction", "count_around", "more", "hidden_by", "between",
    "next_in_lane", "is_next", "reach", "intention", "room", "give_way", "probability", "closing",
}  # fmt: skip


def ask(drive, step=0, size=64, views=None):
    return frame_questions(look(drive, step, views or boxes(drive, step, size)))


def answers(questions, template):
    return {question.about: question.answer for question in questions if question.template == template}


@pytest.fixture(scope="module")
def frames():
    """Key frames of real scenes of every kind: (drive, step, views, frame, questions)."""
    found = []
    for index, kind in enumerate((*REGULAR, *CORNER)):
        drive = drive_scene(kind, 500 + index)
        for step in (20, 45) if drive else ():
            views = boxes(drive, step, 64)
            frame = look(drive, step, views)
            found.append((drive, step, views, frame, frame_questions(frame)))
    assert len(found) >= 45
    return found


def test_a_second_opinion_agrees_with_every_answer(frames):
    found = [
        line for drive, step, views, _, questions in frames for line in contradictions(drive, step, views, questions)
    ]
    assert found == []


def test_every_template_is_asked(frames):
    templates = Counter(question.template for *_, questions in frames for question in questions)
    assert SEVERAL_STEPS - {"intention", "give_way"} <= set(templates)
    yes_no = Counter((question.template, question.answer) for *_, questions in frames for question in questions)
    pairs = {template for template, answer in yes_no if answer in ("Yes.", "No.")} - {"intention", "give_way"}
    assert all(yes_no[template, answer] > 1 for template in pairs for answer in ("Yes.", "No."))
    assert min(Counter(question.task for *_, questions in frames for question in questions).values()) > 20


def test_only_what_is_seen_is_named(frames):
    for _, _, _, frame, questions in frames:
        for question in questions:
            assert set(question.about) <= set(frame.by_id)
            tags = {match.group() for match in TAG.finditer(f"{question.text} {question.answer}")}
            assert tags <= {frame.tags[instance] for instance in question.about if instance in frame.tags}


def test_what_disappears_in_the_dark_is_not_asked_about():
    drive = straight_drive([Made("sedan", 20, LANE, 8), Made("bus", -22, -5.25, 8)])
    for question in ask(drive, views=dimmed(boxes(drive), 1, 5)):
        assert 1 not in question.about and "sedan" not in f"{question.text} {question.answer}"


def test_key_objects_are_numbered_from_left_to_right(frames):
    for _, _, _, frame, _ in frames:
        places = [(ORDER.index(item.camera), item.middle[0]) for item in frame.key]
        assert places == sorted(places) and len(places) <= 6
        assert [int(TAG.fullmatch(frame.tags[item.id])[1]) for item in frame.key] == list(range(1, len(places) + 1))


def test_the_same_frame_gives_the_same_questions(frames):
    drive, step, views, frame, questions = frames[0]
    assert frame_questions(look(drive, step, views)) == questions == frame_questions(frame)


def test_closed_questions_have_groups_that_are_words(frames):
    for *_, questions in frames:
        for question in questions:
            assert question.text and question.answer and question.tags
            if question.closed and TAG.search(question.text):
                assert "CAM_" in question.group, "tags tell where things are"


@pytest.mark.parametrize(("near", "far", "expected"), [(20, 40, {"Yes.", "No."}), (20, 21.5, set()), (60, 65, set())])
def test_which_is_closer_is_asked_only_far_from_a_tie(near, far, expected):
    found = set()
    for seed in range(6):
        drive = straight_drive([Made("sedan", near, LANE), Made("truck", far, 1.75, colour="blue")], seed=seed)
        found |= set(answers(ask(drive, size=112), "closer").values())
    assert found == expected


def test_two_objects_in_either_order():
    orders = Counter(
        question.about[0]
        for seed in range(40)
        for question in ask(straight_drive([Made("sedan", 15, LANE), Made("bus", 30, 1.75)], seed=seed))
        if question.template == "closer"
    )
    assert min(orders.values()) > 10


def test_lane_questions():
    drive = straight_drive([Made("van", 30, LANE), Made("sedan", 15, -5.25, 10, colour="blue")], speed=10)
    questions = ask(drive, size=112)
    assert answers(questions, "next_in_lane") == {(1,): "A red van."}
    assert answers(questions, "is_next") == {(1,): "Yes.", (2,): "No."}
    assert answers(questions, "reach") == {(1,): "In about 3 seconds."}
    assert answers(questions, "in_path") == {(1,): "Yes.", (2,): "No."}
    assert answers(questions, "faster") in ({(2, 1): "Yes."}, {(1, 2): "No."})
    assert answers(questions, "collision")[1,] == "Keep going at the same speed and accelerate and go straight."
    assert answers(ask(straight_drive([])), "next_in_lane") == {(): "Nothing within 60 meters."}


def test_the_reason_is_told_only_if_it_is_seen():
    lead = Decision("lead", 1)
    drive = straight_drive([Made("truck", 25, LANE, 10, colour="white")], decision=lead)
    assert [question.answer for question in ask(drive) if question.template == "plan"] == [
        "The ego vehicle should go straight and keep going at the same speed, because it follows a white truck ahead."
    ]
    assert not [question for question in ask(drive, views=dimmed(boxes(drive), 1, 5)) if question.template == "plan"]


def test_the_cause_of_a_change_of_lane_is_in_the_lane_that_is_left():
    causes = 0
    for kind in ("lane_change", "overtake", "cyclist", "fallen_cargo", "wrong_way", "merge"):
        for seed in range(8):
            drive = drive_scene(kind, seed)
            for step in range(6, 61, 3) if drive else ():
                done = action(drive, step)
                decision = binding(drive, step, done)
                if not done.lateral.startswith("change") or decision is None:
                    continue
                causes += 1
                d = float(drive.scene.road.track.project(*drive.poses[decision.actor, step, :2])[1])
                to_side = np.diff(drive.offsets[step:]) * (1 if "left" in done.lateral else -1) > 1e-3
                begin = int(np.argmax(to_side))
                reached = drive.offsets[step + begin + int(np.argmin(np.append(to_side[begin:], False)))]
                assert abs(d - reached) > LANE_M / 4, (kind, seed, step)
                if abs(reached - drive.offsets[step]) > 3.0:
                    assert abs(d - reached) > LANE_M / 2, (kind, seed, step)
    assert causes > 60


def test_only_what_is_ahead_or_comes_into_the_way_is_noticed():
    ahead = [Made("van", 20, LANE, 10), Made("bus", 35, -5.25, 10)]
    for third, expected in (
        (Made("truck", 50, 1.75, 10), 3),
        (Made("truck", -15, -5.25, 10), 0),
        (Made("pedestrian", 3, -9, 3.0, yaw=np.pi / 2, role="crosser"), 3),
        (Made("pedestrian", 3, -9, 3.0, yaw=-np.pi / 2, role="crosser"), 0),
    ):
        found = answers(ask(straight_drive([*ahead, third]), size=112), "notice")
        assert sum(map(len, found)) == expected, third


def test_equal_objects_are_told_together():
    vans = [Made("van", 20, LANE, 10), Made("van", 30, 0.5, 10), Made("bus", 22, -4.25, 10), Made("SUV", -15, LANE, 10)]
    question = next(item for item in ask(straight_drive(vans), size=112) if item.template == "objects")
    assert question.answer.startswith(
        "There are two red vans to the front of the ego vehicle, a red bus to the front of the ego vehicle, and "
        "a red SUV to the back of the ego vehicle. The IDs of these objects are <c1,"
    )
    told = [several(noun, 2) for noun in ("person", "child", "white bus", "red car", "pile of logs", "gray SUV")]
    assert told == [
        "two people",
        "two children",
        "two white buses",
        "two red cars",
        "two piles of logs",
        "two gray SUVs",
    ]


def test_intentions_are_asked_where_those_are_who_have_them():
    for x, indicator, expected in ((15, 1, "Yes."), (15, 0, "No."), (15, -1, "No."), (40, 0, None), (-8, 0, None)):
        drive = straight_drive([Made("bus", x, -5.25, 10, indicator=indicator)])
        if indicator > 0:
            drive.poses[1, :, 1] += np.linspace(0, 6, STEPS).clip(0, 3.5)
        assert answers(ask(drive, size=112), "intention") == ({(1,): expected} if expected else {}), (x, indicator)


def test_bends_are_followed_and_turns_are_made_at_junctions():
    def told(turning):
        drive = straight_drive([])
        drive.poses[0, :, 2] = 0.15 * STEP_S * np.arange(STEPS)
        drive.turning[:] = turning
        return {question.template: question.answer for question in ask(drive)}

    assert told(0)["plan"] == (
        "The ego vehicle should follow the bend to the left and keep going at the same speed, because the road bends."
    )
    assert told(0)["target"] == "Follow the bend to the left and keep going at the same speed."
    assert told(1)["target"] == "Turn left and keep going at the same speed."


def test_a_coming_turn_is_told_as_coming():
    def told(turning):
        drive = straight_drive([], decision=Decision("turn"))
        drive.turning[turning:60] = 1
        return next(question for question in ask(drive) if question.template == "plan")

    assert told(15).text.endswith("What action should the ego vehicle take in the next three seconds, and why?")
    assert told(15).answer.endswith("because it will turn at the junction.")
    assert told(0).answer.endswith("because it turns at the junction.")


def test_a_plan_holds_for_three_seconds():
    for change, expected in ((0.5, 1), (3.0, 0)):
        drive = straight_drive([])
        drive.speeds[0, 25:] += change
        assert sum(question.template == "target" for question in ask(drive)) == expected


def test_traffic_lights_are_never_a_riddle():
    def lights(heads, signal):
        questions = ask(straight_drive([], heads=heads, signal=signal, decision=Decision("light")), size=112)
        return list(answers(questions, "light").values())

    assert lights((Head(1001, 14.0, LANE, 3.0, np.pi),), "red") == ["Red."]
    assert lights((Head(1001, 60.0, LANE, 5.0, np.pi),), "red") == [], "too small to be read"
    assert lights((Head(1001, -20.0, 9.0, 5.0, np.pi),), "red") in ([], ["There is no traffic light."])
    assert lights((), None) == ["There is no traffic light."]


def test_the_wording_is_drivelm_s(frames, tmp_path):
    *_, frame, questions = next(
        item for item in frames if len(item[3].key) > 3 and "behavior" in {q.template for q in item[4]}
    )
    tasks = ("perception", "prediction", "planning", "behavior")
    scenes = {"s": {"scene_description": "", "key_frames": {"f": {
        "key_object_infos": key_object_infos(frame),
        "QA": {task: [{"Q": item.text, "A": item.answer, "tag": list(item.tags)} for item in questions if item.task == task]
               for task in tasks},
        "image_paths": {camera: f"../nuscenes/samples/{camera}/x.jpg" for camera in CAMERAS},
    }}}}  # fmt: skip
    write_json(tmp_path / "x.json", scenes)
    assert len(list(read(tmp_path, "x.json", regime="regular"))) == len(questions)
    test = to_multiple_choice(extract_challenge(scenes), 0)["s"]["key_frames"]["f"]["QA"]
    assert [item["tag"] for item in test["perception"]] == [[2], [0]]
    assert "moving status of object" in test["perception"][1]["Q"]
    assert {item["tag"][0] for item in test["planning"]} == {1}
    assert len(test["behavior"]) == 1 and re.fullmatch("[ABCD]", test["behavior"][0]["A"])


def test_behavior_is_one_of_drivelm_s_answers(frames):
    told = {question.answer for *_, questions in frames for question in questions if question.template == "behavior"}
    assert told <= set(BEHAVIORS) and len(told) > 3


def test_texts_are_english(frames):
    for *_, questions in frames:
        for question in questions:
            text = f" {question.text} {question.answer} "
            assert not re.search(r" [Aa] (?:[aeiou]|SUV)| [Aa]n (?!SUV)[^aeiou]|  [a-z]|\.\.|None|<c0", text), text
            assert question.answer[0].isupper() or question.answer[0].isdigit() or question.answer[0] == "<"


def test_key_objects_in_drivelm_s_form(frames):
    for _, _, _, frame, _ in frames:
        for tag, info in key_object_infos(frame).items():
            _, camera, x, y = TAG.fullmatch(tag).groups()
            x0, y0, x1, y1 = info["2d_bbox"]
            assert camera in CAMERAS and (float(x), float(y)) == ((x0 + x1) / 2, (y0 + y1) / 2)
            assert info["Status"] in ("Moving", "Stationary", None) and info["Visual_description"].endswith(".")
