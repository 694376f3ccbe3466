import json
from collections import Counter
from pathlib import Path

import pytest

from drivedistill.data import READERS, drivelm
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS


def write(root: Path, value: object, name: str = "v1_1_train_nus.json") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def frame(**changes: object) -> dict:
    images = {camera: f"../nuscenes/samples/{camera}/x.jpg" for camera in reversed(CAMERAS)}
    qa = {"perception": [{"Q": "What?", "A": "A car.", "C": None}], "behavior": [{"Q": "How?", "A": "Fast."}]}
    return {"key_object_infos": {"<c1,CAM_BACK,1.0,2.0>": {"Status": None}}, "QA": qa, "image_paths": images} | changes


def scenes(**changes: object) -> dict:
    return {"s": {"scene_description": "Sunny.", "key_frames": {"f": frame(**changes)}}}


def read(root: Path, file: str = "train") -> list:
    return list(READERS["drivelm"](root, file, regime="regular"))


def problems(root: Path, file: str = "train") -> list[str]:
    with pytest.raises(InputError) as error:
        read(root, file)
    assert all(problem.remedy and problem.expected and problem.file for problem in error.value.problems)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.drivelm
def test_public_sample_has_the_published_counts(drivelm_sample):
    samples = read(drivelm_sample)
    assert Counter(sample.task for sample in samples) == {
        "perception": 337,
        "prediction": 271,
        "planning": 173,
        "behavior": 9,
    }
    assert len({sample.frame for sample in samples}) == 9
    pictures = {path for sample in samples for path in sample.images.values()}
    assert len(pictures) == 54 and all(Path(path).is_file() for path in pictures)
    assert len({sample.id for sample in samples}) == 790


@pytest.mark.drivelm
def test_challenge_ids_questions_and_answers_are_those_of_the_official_output(drivelm_sample):
    samples = read(drivelm_sample, "challenge")
    official = json.loads((drivelm_sample / "output.json").read_text())
    assert [sample.id for sample in samples] == [row["id"] for row in official]
    assert [sample.question for sample in samples] == [row["question"].removeprefix("<image>\n") for row in official]
    assert [sample.answer for sample in samples] == [row["gt_answer"] for row in official]
    assert Counter(sample.tags for sample in samples) == {(1,): 27, (0,): 26, (2,): 9, (3,): 4}


def test_views_come_in_one_order_whatever_the_file_says(tmp_path):
    write(tmp_path, scenes())
    assert all(tuple(sample.images) == CAMERAS for sample in read(tmp_path))


def test_ids_count_the_tasks_of_a_frame_together(tmp_path):
    write(tmp_path, scenes())
    assert [(sample.id, sample.task) for sample in read(tmp_path)] == [("s_f_0", "perception"), ("s_f_1", "behavior")]


def test_unknown_fields_are_kept_and_nulls_are_not(tmp_path):
    write(tmp_path, scenes(weather="rain", QA={"planning": [{"Q": "?", "A": "!", "C": None, "con_up": [1], "new": 2}]}))
    extra = read(tmp_path)[0].extra
    assert extra["con_up"] == [1] and extra["new"] == 2 and extra["weather"] == "rain"
    assert extra["scene_description"] == "Sunny." and "key_object_infos" in extra and "C" not in extra


def test_blank_answer_stays_blank_and_no_answer_is_none(tmp_path):
    items = [{"Q": "1?", "A": ""}, {"Q": "2?", "A": None}, {"Q": "3?"}]
    write(tmp_path, scenes(QA={"perception": items}))
    assert [sample.answer for sample in read(tmp_path)] == ["", None, None]


def test_a_file_of_questions_only_has_no_answers(tmp_path):
    write(tmp_path, scenes(QA={"perception": [{"Q": "1?", "A": ""}]}), "v1_1_val_nus_q_only.json")
    assert [(sample.answer, sample.split) for sample in read(tmp_path, "val")] == [(None, "val")]


def test_newer_version_and_the_official_folder_come_first(tmp_path):
    for name, text in (("v1_0_train_nus.json", "old"), ("QA_dataset_nus/v1_1_train_nus.json", "new")):
        write(tmp_path, scenes(QA={"perception": [{"Q": text, "A": ""}]}), name)
    assert [sample.question for sample in read(tmp_path)] == ["new"]
    assert [sample.question for sample in read(tmp_path, "v1_0_train_nus.json")] == ["old"]


@pytest.mark.parametrize("prefix", ["../", "data/", "", "..\\"])
def test_the_published_spellings_of_a_path_mean_the_data_root(tmp_path, prefix):
    tail = "nuscenes/samples/CAM_FRONT/x.jpg"
    write(tmp_path, scenes(image_paths={"CAM_FRONT": prefix + (tail.replace("/", "\\") if "\\" in prefix else tail)}))
    assert read(tmp_path)[0].images == {"CAM_FRONT": str(tmp_path / tail)}


@pytest.mark.parametrize(
    "path", ["../../secret.jpg", "/etc/passwd", "nuscenes/../../x.jpg", "data/../../x.jpg", "a\0b"]
)
def test_path_outside_the_data_root_is_refused(tmp_path, path):
    write(tmp_path, scenes(image_paths={"CAM_FRONT": path}))
    (found,) = problems(tmp_path)
    assert "inside the data root" in found and "scene s, frame f, image_paths.CAM_FRONT" in found


def test_every_problem_is_listed_in_one_round(tmp_path):
    bad = scenes(
        image_paths={"CAM_TOP": "x.jpg", "CAM_BACK": 3}, QA={"perception": [{"A": "x"}, {"Q": 1}, 7], "taste": []}
    )
    write(tmp_path, bad | {"t": {"key_frames": []}, "u": []})
    found = problems(tmp_path)
    for place in ("CAM_TOP", "CAM_BACK", "perception[0].Q", "perception[1].Q", "perception[2]", "QA.taste"):
        assert any(f"scene s, frame f, {place}" in line or f"image_paths.{place}" in line for line in found), place
    assert any("scene t, key_frames" in line for line in found)
    assert any("scene u, the scene" in line for line in found)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("item", "place"),
    [({"Q": "?", "A": 1}, "A"), ({"Q": "?", "A": "", "tag": "0"}, "tag"), ({"Q": " ", "A": ""}, "Q")],
)
def test_wrong_types_are_named(tmp_path, item, place):
    write(tmp_path, scenes(QA={"planning": [item]}))
    assert f"planning[0].{place}" in problems(tmp_path)[0]


@pytest.mark.parametrize("key", ["QA", "image_paths"])
def test_missing_key_is_named(tmp_path, key):
    value = scenes()
    del value["s"]["key_frames"]["f"][key]
    write(tmp_path, value)
    assert any(f"an object `{key}`" in line and "nothing" in line for line in problems(tmp_path))


def test_truncated_json_says_where_it_ends(tmp_path):
    write(tmp_path, json.dumps(scenes())[:100])
    (found,) = problems(tmp_path)
    assert "v1_1_train_nus.json" in found and "column" in found and "fetch it again" in found


@pytest.mark.parametrize("text", ["", "[]", "null", '{"s": {}, "s": {}}', "[" * 100_000])
def test_no_drivelm_file_is_refused(tmp_path, text):
    write(tmp_path, text)
    assert len(problems(tmp_path)) == 1


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "v1_1_train_nus.json").write_bytes(b"\xff\xfe{}")
    assert "utf-8" in problems(tmp_path)[0]


def test_missing_file_lists_where_it_was_looked_for(tmp_path):
    assert "QA_dataset_nus/v1_1_train_nus.json" in problems(tmp_path)[0]
    assert "outside" in problems(tmp_path, "../x.json")[0]


def test_samples_before_a_bad_record_are_still_yielded(tmp_path):
    write(tmp_path, scenes(QA={"perception": [{"Q": "1?"}, {"Q": 2}, {"Q": "3?"}]}))
    seen = []
    with pytest.raises(InputError):
        for sample in drivelm.read(tmp_path, "train", regime="corner"):
            seen.append((sample.id, sample.regime))
    assert seen == [("s_f_0", "corner"), ("s_f_2", "corner")]


def test_drawn_data_reads_as_drivelm(made):
    samples = read(made / "regular")
    assert {sample.task for sample in samples} == {"perception", "prediction", "planning", "behavior"}
    assert all(Path(path).is_file() for sample in samples for path in sample.images.values())
    assert len({sample.scene for sample in samples}) == 3 and len({sample.frame for sample in samples}) == 6
