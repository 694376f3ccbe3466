import json
from pathlib import Path

import pytest

from drivedistill.data import READERS
from drivedistill.data.coda_lm import GENERAL, REGION, SUGGESTION
from drivedistill.problems import InputError

TEXT = "description and explanation"


def annotation() -> dict:
    return {
        "general_perception": {"vehicles": [{}, {"description": "A bus."}], "traffic signs": [], TEXT: "General."},
        "region_perception": {"1": {TEXT: "A dog.", "box": [1, 2.5, 30, 40], "category_name": "dog", "score": 0.5}},
        "driving_suggestion": "Stop.",
        "weather": "rain",
    }


def write(root: Path, value: object, split: str = "Train", name: str = "val_0001") -> None:
    path = root / "CODA-LM" / split / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def read(root: Path, file: str = "Train") -> list:
    return list(READERS["coda_lm"](root, file, regime="corner"))


def problems(root: Path, file: str = "Train") -> list[str]:
    with pytest.raises(InputError) as error:
        read(root, file)
    assert all(problem.remedy and problem.expected and problem.file for problem in error.value.problems)
    return [str(problem) for problem in error.value.problems]


def test_one_picture_gives_a_general_a_suggestion_and_a_region_question(tmp_path):
    write(tmp_path, annotation())
    general, suggestion, region = read(tmp_path)
    assert (general.id, general.task, general.question, general.answer) == (
        "val_0001_general",
        "perception",
        GENERAL,
        "General.",
    )
    assert (suggestion.id, suggestion.task, suggestion.question) == ("val_0001_suggestion", "planning", SUGGESTION)
    assert (region.id, region.task, region.question, region.answer) == (
        "val_0001_region_1",
        "perception",
        REGION,
        "A dog.",
    )
    assert region.region.model_dump() == {"camera": "CAM_FRONT", "box": (1, 2.5, 30, 40), "category": "dog"}
    for sample in (general, suggestion, region):
        assert sample.images == {"CAM_FRONT": str(tmp_path / "val/images/0001.jpg")}
        assert sample.scene == sample.frame == "val_0001" and sample.regime == "corner" and sample.dataset == "coda_lm"


def test_unused_fields_are_kept(tmp_path):
    write(tmp_path, annotation())
    general, suggestion, region = read(tmp_path)
    assert general.extra["general_perception"]["vehicles"] == [{}, {"description": "A bus."}]
    assert region.extra == {"score": 0.5, "weather": "rain"} and suggestion.extra == {"weather": "rain"}


def test_prefix_names_the_picture_folder_and_coda_may_lie_beside(tmp_path):
    write(tmp_path, annotation(), "Val", "test_0007")
    assert read(tmp_path, "Val")[0].images == {"CAM_FRONT": str(tmp_path / "test/images/0007.jpg")}
    (tmp_path / "CODA2022/test/images").mkdir(parents=True)
    assert read(tmp_path, "Val")[0].images == {"CAM_FRONT": str(tmp_path / "CODA2022/test/images/0007.jpg")}


def test_test_split_may_lack_answers_and_the_others_may_not(tmp_path):
    value = {"region_perception": {"1": {"box": [0, 0, 5, 5], "category_name": "dog"}}}
    write(tmp_path, value, "Test", "test_0001")
    assert [sample.answer for sample in read(tmp_path, "Test")] == [None, None, None]
    write(tmp_path, value, "Train")
    found = "\n".join(problems(tmp_path))
    assert "general_perception" in found and "driving_suggestion" in found and f"region_perception.1.{TEXT}" in found


def test_a_single_annotation_can_be_named(tmp_path):
    write(tmp_path, annotation())
    write(tmp_path, annotation(), name="val_0002")
    assert len(read(tmp_path)) == 6
    assert len(read(tmp_path, "CODA-LM/Train/val_0002.json")) == 3


@pytest.mark.parametrize(
    "box", [None, [1, 2, 3], [0, 0, 0, 5], [0, 0, 5, -1], ["a", 1, 2, 3], [float("nan"), 0, 1, 1], 7]
)
def test_bad_box_is_refused(tmp_path, box):
    value = annotation()
    value["region_perception"]["1"]["box"] = box
    write(tmp_path, value)
    (found,) = problems(tmp_path)
    assert "region_perception.1.box" in found


def test_every_damaged_file_is_listed(tmp_path):
    write(tmp_path, "{", name="val_0001")
    write(tmp_path, annotation() | {"driving_suggestion": 5}, name="val_0002")
    write(tmp_path, annotation(), name="notes")
    write(tmp_path, annotation(), name="val_0003")
    found = problems(tmp_path)
    assert len(found) == 3
    assert all(any(name in line for line in found) for name in ("val_0001", "val_0002", "notes"))


def test_empty_and_missing_folders_are_refused(tmp_path):
    assert "CODA-LM/Train" in problems(tmp_path)[0]
    (tmp_path / "CODA-LM/Train").mkdir(parents=True)
    assert "annotations such as" in problems(tmp_path)[0]
    assert "outside" in problems(tmp_path, "../../x")[0]


def test_question_answer_conversion_is_read(tmp_path):
    rows = [
        {"question_id": 0, "image": "val/images/0001.jpg", "question": GENERAL, "answer": "A bus."},
        {"question_id": 1, "image": "val/images/0001.jpg", "question": SUGGESTION},
        {"question_id": 2, "image": "val/images_w_boxes/0001_object_3.jpg", "question": REGION, "answer": "A dog."},
    ]
    for name in ("all.jsonl", "CODA-LM/Train/vqa_anno/all.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
        samples = read(tmp_path, name)
        assert [sample.id for sample in samples] == ["val_0001_general", "val_0001_suggestion", "val_0001_region_3"]
        assert [sample.task for sample in samples] == ["perception", "planning", "perception"]
        assert [sample.answer for sample in samples] == ["A bus.", None, "A dog."]
        assert all(sample.region is None and sample.scene == "val_0001" for sample in samples)


def test_bad_lines_of_the_conversion_are_listed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question_id": 0, "image": "../../x.jpg", "question": "?"}\n')
    assert "question_id 0" in problems(tmp_path, "a.jsonl")[0]
    (tmp_path / "b.jsonl").write_text('{"question_id": 0}\n{"question_id"')
    assert len(problems(tmp_path, "b.jsonl")) == 3


def test_drawn_data_reads_as_coda_lm(made):
    samples = read(made / "corner") + read(made / "corner", "Val")
    assert len({sample.scene for sample in samples}) == 8
    assert all(Path(path).is_file() for sample in samples for path in sample.images.values())
    assert any(sample.region for sample in samples)
