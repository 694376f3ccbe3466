import copy
import json
import re

import pytest

from drivedistill.data.drivelm_challenge import BEHAVIORS, MOVING_STATES, extract_challenge, to_multiple_choice

CUT = " Please select the correct answer from the following options: "


def questions(scenes: dict) -> list[tuple[str, dict]]:
    return [
        (f"{scene} {token} {task}", qa)
        for scene, body in scenes.items()
        for token, frame in body["key_frames"].items()
        for task, items in frame["QA"].items()
        for qa in items
    ]


def chosen(qa: dict) -> str:
    options = re.split(r" ?[ABCD]\. ", qa["Q"].split(CUT)[1])[1:]
    assert len(options) == len(set(options)) == 4 and set(options) <= {*MOVING_STATES, *BEHAVIORS}
    return options["ABCD".index(qa["A"])]


def one(task: str, question: str, answer: str | None) -> dict:
    qa = {"Q": question, "A": answer}
    return {"s": {"key_frames": {"f": {"key_object_infos": {}, "image_paths": {}, "QA": {task: [qa]}}}}}


@pytest.mark.drivelm
def test_extraction_equals_the_official_test_file(drivelm_sample):
    train = json.loads((drivelm_sample / "train_sample.json").read_text())
    before = copy.deepcopy(train)
    assert extract_challenge(train) == json.loads((drivelm_sample / "test.json").read_text())
    assert train == before


@pytest.mark.drivelm
def test_multiple_choice_equals_the_official_file_up_to_the_distractors(drivelm_sample):
    test = json.loads((drivelm_sample / "test.json").read_text())
    ours = questions(to_multiple_choice(test, seed=0))
    official = questions(json.loads((drivelm_sample / "test_eval.json").read_text()))
    assert len(ours) == len(official) == 66
    for (place, mine), (other, theirs) in zip(ours, official, strict=True):
        assert place == other and mine["tag"] == theirs["tag"]
        assert mine["Q"].split(CUT)[0] == theirs["Q"].split(CUT)[0]
        if CUT in theirs["Q"]:
            assert chosen(mine) == chosen(theirs)
        else:
            assert mine == theirs
    assert sum(CUT in qa["Q"] for _, qa in ours) == 17


def test_choices_are_a_function_of_the_seed():
    test = extract_challenge(one("behavior", "Predict the behavior of the ego vehicle.", BEHAVIORS[3]))
    assert to_multiple_choice(test, 1) == to_multiple_choice(test, 1)
    assert len({json.dumps(to_multiple_choice(test, seed)) for seed in range(8)}) > 4
    assert all(chosen(qa) == BEHAVIORS[3] for seed in range(8) for _, qa in questions(to_multiple_choice(test, seed)))


@pytest.mark.parametrize("answer", ["Flying.", "", None])
def test_answer_outside_the_closed_list_stays_an_open_question(answer):
    test = extract_challenge(one("perception", "What is the moving status of object <c1,CAM_BACK,1.0,2.0>?", answer))
    assert to_multiple_choice(test, 0) == test


def test_there_are_21_behaviors_and_7_moving_states():
    assert len(set(BEHAVIORS)) == 21 and len(set(MOVING_STATES)) == 7


def test_drawn_data_has_every_tag(made):
    train = json.loads((made / "regular" / "QA_dataset_nus" / "v1_1_train_nus.json").read_text())
    tagged = [qa for _, qa in questions(to_multiple_choice(extract_challenge(train), 0))]
    assert {tag for qa in tagged for tag in qa["tag"]} == {0, 1, 2, 3}
    assert all(
        CUT in qa["Q"]
        for place, qa in questions(to_multiple_choice(extract_challenge(train), 0))
        if "behavior" in place
    )
