import json
from pathlib import Path

import numpy as np
import pytest

from drivedistill.data import READERS
from drivedistill.data.senna import KINDS
from drivedistill.data.senna_rules import VIEWS, meta_action_question, multi_view
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS

ROAD_USERS = "Do you see any vulnerable road users within 20 meters ahead of you?"
PUBLISHED = {
    "senna_meta_action": meta_action_question(9.7, "go straight"),
    "senna_road_users": ROAD_USERS,
    "senna_intentions": "Please predict their future driving behaviors, which can be divided into SPEED decisions and PATH "
    "decisions.\nPlease predict the future driving behaviors of these objects based on the front view image. \n",
    "senna_traffic_light": "Given the provided forward-facing image <image> from a car's perspective, identify if there is a "
    "traffic light that affects the car's behavior. Respond with 'Red', 'Green', 'Yellow', or 'None'.",
    "senna_scene": "Suppose you are driving, and I'm providing you with the image captured by the car's front <image>, "
    "generate a description of the driving scene which includes the key factors for driving planning.",
    "senna_explanation": "You are driving, your current speed is 9 m/s, and the navigation command is go straight your "
    "driving decision for the next three seconds is to maintain the current speed and go straight. Based on the provided "
    "image of the driving environment, explain the most likely reason for this decision in one or two concise sentence.",
}
"""One question of each of the six kinds, in the words of the published converter."""


def picture(camera: str) -> str:
    return f"nuscenes/samples/{camera}/n015__{camera}__153.jpg"


def talk(*texts: str) -> list[dict]:
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def record(*texts: str, **changes: object) -> dict:
    said = texts or (multi_view(PUBLISHED["senna_meta_action"]), "KEEP, STRAIGHT\n")
    return {
        "token": "f",
        "image": picture("CAM_FRONT"),
        "images": [picture(camera) for camera in VIEWS],
        "prev": "",
        "next": "g",
        "scene_token": "s",
        "fut_valid_flag": True,
        "ego_fut_trajs": str([[0.0, 2.5]] * 6),
        "conversations": talk(*said),
    } | changes


def read(root: Path, *records: object, file: str = "train") -> list:
    (root / "senna").mkdir(exist_ok=True)
    (root / "senna/train.json").write_text(json.dumps(records))
    return list(READERS["senna"](root, file, regime="regular"))


def problems(root: Path, *records: object) -> list[str]:
    with pytest.raises(InputError) as error:
        read(root, *records)
    assert all(problem.remedy and problem.expected and problem.file for problem in error.value.problems)
    return [str(problem) for problem in error.value.problems]


def test_planning_record_becomes_a_sample_with_its_action_and_path(tmp_path):
    (sample,) = read(tmp_path, record(future="kept"))
    assert sample.question == PUBLISHED["senna_meta_action"] and sample.question.startswith(
        "Your current speed is 9 m/s"
    )
    assert (sample.answer, sample.meta_action) == ("KEEP, STRAIGHT", "KEEP, STRAIGHT")
    assert sample.future_path == tuple((0.0, 2.5 * k) for k in range(1, 7))
    assert (sample.id, sample.scene, sample.frame, sample.split) == ("f_meta_action", "s", "f", "train")
    assert sample.extra == {
        "prev": "", "next": "g", "fut_valid_flag": True, "future": "kept", "template": "senna_meta_action"
    }  # fmt: skip


def test_each_of_the_six_kinds_has_its_task(tmp_path):
    samples = read(tmp_path, *(record(question, "A." if kind != "senna_meta_action" else "KEEP, STRAIGHT")
                               for kind, question in PUBLISHED.items()))  # fmt: skip
    assert [sample.extra["template"] for sample in samples] == list(PUBLISHED) == [kind.name for kind in KINDS]
    tasks = ["planning", "perception", "prediction", "perception", "perception", "behavior"]
    assert [sample.task for sample in samples] == tasks
    assert [sample.meta_action for sample in samples] == ["KEEP, STRAIGHT", *[None] * 5]
    assert not any("<image>" in sample.question or "VIEW>" in sample.question for sample in samples)
    assert "forward-facing image from a car's" in samples[3].question


def test_pictures_go_to_the_cameras_that_their_paths_name_whatever_the_list_or_the_prompt_says(tmp_path):
    published = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]
    flat = [f"pictures/n015__{camera}__1.jpg" for camera in published]
    for images in ([picture(camera) for camera in published], flat):
        (sample,) = read(tmp_path, record(images=images))
        assert tuple(sample.images) == CAMERAS
        assert all(camera in path.replace("/", "__").split("__") for camera, path in sample.images.items())


def test_pictures_without_a_camera_in_their_paths_follow_the_prompt(tmp_path):
    (sample,) = read(tmp_path, record(images=[f"{number}.jpg" for number in range(6)]))
    order = {camera: str(tmp_path / f"{number}.jpg") for number, camera in enumerate(VIEWS)}
    assert sample.images == order and tuple(sample.images) == CAMERAS


@pytest.mark.parametrize(
    "images",
    [
        ["0.jpg", picture("CAM_BACK")],
        [picture("CAM_BACK"), picture("CAM_BACK")],
        ["samples/CAM_FRONT/n__CAM_BACK__1.jpg"],
        ["samples/CAM_FRONT_LEFTISH/1.jpg"],
        ["0.jpg", "1.jpg"],
    ],
    ids=["some tell", "twice", "two in one", "unknown", "fewer than the prompt"],
)
def test_doubt_about_a_camera_is_a_problem(tmp_path, images):
    (found,) = problems(tmp_path, record(images=images))
    assert "different cameras" in found


def test_single_picture_of_a_record_is_enough(tmp_path):
    one = record(ROAD_USERS, "No.")
    del one["images"]
    (sample,) = read(tmp_path, one)
    assert list(sample.images) == ["CAM_FRONT"]


@pytest.mark.parametrize("prefix", ["", "./", "data/", "./data/", "../", "..\\"])
def test_published_spellings_of_a_path_mean_the_data_root(tmp_path, prefix):
    (sample,) = read(tmp_path, record(images=[prefix + picture("CAM_FRONT")]))
    assert sample.images == {"CAM_FRONT": str(tmp_path / picture("CAM_FRONT"))}


@pytest.mark.parametrize("path", ["/CAM_FRONT/1.jpg", "../../CAM_FRONT/1.jpg", "a/../../CAM_FRONT.jpg", "CAM_FRONT\0"])
def test_path_outside_the_data_root_is_refused(tmp_path, path):
    (found,) = problems(tmp_path, record(images=[path]))
    assert "inside the data root" in found and "record 0, images" in found


def test_path_as_numpy_prints_it_is_read(tmp_path):
    steps = np.array([[0.0, 2.5]] * 6)
    (sample,) = read(tmp_path, record(ego_fut_trajs=str(steps)))
    assert sample.future_path == tuple(map(tuple, np.cumsum(steps, axis=0)))


def test_path_that_is_not_valid_is_not_read_and_checks_nothing(tmp_path):
    bad = {"fut_valid_flag": False, "ego_fut_trajs": "[[0.0, 0.0]]"}
    (sample,) = read(tmp_path, record(multi_view(PUBLISHED["senna_meta_action"]), "STOP, LEFT_TURN", **bad))
    assert sample.future_path is None and sample.meta_action == "STOP, LEFT_TURN"


@pytest.mark.parametrize("value", ["[[0.0, 2.5]]", "[[nan, 0.0]]", str([[0.0, 1e999]] * 6), "six", 7, [[0, 1e400]] * 6])
def test_valid_path_without_six_finite_points_is_a_problem(tmp_path, value):
    (found,) = problems(tmp_path, record(ego_fut_trajs=value))
    assert "6 offsets" in found


def test_answer_that_is_not_the_label_of_the_path_is_a_problem_that_names_both(tmp_path):
    question = PUBLISHED["senna_meta_action"]
    (found,) = problems(tmp_path, record(question, "KEEP, LEFT_TURN\n"))
    assert "expected: KEEP, STRAIGHT" in found and "'KEEP, LEFT_TURN'" in found
    (found,) = problems(tmp_path, record(question, "Keep going.", ego_fut_trajs=None))
    assert "an answer such as KEEP, STRAIGHT" in found


def test_turns_of_one_record_are_samples_and_the_last_answer_may_be_missing(tmp_path):
    samples = read(tmp_path, record(multi_view(ROAD_USERS), "No.", ROAD_USERS, "Yes.", PUBLISHED["senna_meta_action"]))
    assert [sample.answer for sample in samples] == ["No.", "Yes.", None]
    assert [sample.id for sample in samples] == ["f_road_users", "f_road_users_2", "f_meta_action"]
    assert samples[2].meta_action is None


def test_ids_count_the_questions_of_a_kind_per_frame_over_the_whole_file(tmp_path):
    samples = read(tmp_path, *(record(ROAD_USERS, "No.", token=token) for token in "fgf"))
    assert [sample.id for sample in samples] == ["f_road_users", "g_road_users", "f_road_users_2"]


def test_every_problem_is_listed_in_one_round(tmp_path):
    found = problems(
        tmp_path,
        record(token="", scene_token=3, images=[], conversations=[]),
        record(fut_valid_flag="yes"),
        "nothing",
        record("How are you?", "Fine."),
        record(conversations=[{"from": "gpt", "value": "KEEP, STRAIGHT"}]),
        record(conversations=[{"from": "human", "value": 3}]),
    )
    places = [
        "record 0, token", "record 0, scene_token", "record 0, conversations", "record 0, images",
        "record 1, fut_valid_flag", "record 2, the record", "record 3, conversations", "record 4, conversations",
        "record 5, conversations",
    ]  # fmt: skip
    assert len(found) == len(places) and all(place in text for place, text in zip(places, found, strict=True))


@pytest.mark.parametrize("text", ["{}", '[{"token": "f"', '[{"token": "f", "token": "g"}]', "\xff"])
def test_damaged_file_is_one_problem(tmp_path, text):
    (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        list(READERS["senna"](tmp_path, "train", regime="regular"))
    assert len(error.value.problems) == 1


def test_files_are_looked_for_in_the_folder_and_in_the_root(tmp_path):
    assert read(tmp_path, record(), file="senna/train.json")[0].split == "train"
    with pytest.raises(InputError, match=r"senna/val\.json, val\.json"):
        read(tmp_path, record(), file="val")
