"""Clips of one's own: folders of pictures and a file of labels. Videos have their own tests."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drivedistill.data import READERS
from drivedistill.data.senna_rules import meta_action, meta_action_question
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS, Sample

BRAKING = [[0.0, y] for y in (4.0, 7.5, 10.5, 13.0, 15.0, 16.5)]


def picture(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


def write(root: Path, *rows: dict, name: str = "labels.jsonl") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(root: Path, file: str = "labels") -> list[Sample]:
    return list(READERS["clips"](root, file, regime="regular"))


def problems(root: Path, file: str = "labels") -> list[str]:
    with pytest.raises(InputError) as error:
        read(root, file)
    assert all(
        problem.remedy and problem.expected and problem.found and problem.file for problem in error.value.problems
    )
    return [str(problem) for problem in error.value.problems]


def row(**changes: object) -> dict:
    """A right row; None takes a key out."""
    whole = {"clip": "a", "frame": 12, "meta_action": "KEEP, STRAIGHT", **changes}
    return {key: value for key, value in whole.items() if value is not None}


@pytest.fixture
def root(tmp_path) -> Path:
    """Clip `a` with the pictures 000011 and 000012 of the front camera."""
    for number in (11, 12):
        picture(tmp_path / "a" / "CAM_FRONT" / f"{number:06d}.jpg")
    return tmp_path


def test_a_labelled_moment_is_one_planning_question(root):
    write(root, row(speed=7.9, command="turn left", regime="corner"))
    (sample,) = read(root)
    assert sample == Sample(
        id="a/12",
        dataset="clips",
        scene="a",
        frame="a/12",
        split="labels",
        regime="corner",
        task="planning",
        question=meta_action_question(7.9, "turn left"),
        answer="KEEP, STRAIGHT",
        images={"CAM_FRONT": str(root / "a" / "CAM_FRONT" / "000012.jpg")},
        meta_action="KEEP, STRAIGHT",
        extra={"clip": "a", "speed": 7.9, "command": "turn left", "template": "senna_meta_action"},
    )


def test_a_future_path_is_labelled_by_sennas_rules(root):
    write(root, row(meta_action=None, future_path=BRAKING))
    (sample,) = read(root)
    assert sample.meta_action == sample.answer == str(meta_action(BRAKING)) == "DECELERATE, STRAIGHT"
    assert np.array_equal(sample.future_path, BRAKING)


def test_what_is_not_told_is_not_said(root):
    write(root, row(), row(frame=11, speed=0))
    unknown, still = (sample.question for sample in read(root))
    assert unknown == meta_action_question(None, None) and "m/s" not in unknown and "command" not in unknown
    assert still == meta_action_question(0, None)


def test_a_question_of_ones_own_takes_the_place_of_sennas(root):
    write(root, row(question="What now?"), row(frame=11, question="What now?", answer="Brake for the dog."))
    first, second = read(root)
    assert (first.question, first.answer, first.meta_action) == ("What now?", "KEEP, STRAIGHT", "KEEP, STRAIGHT")
    assert (second.answer, second.meta_action) == ("Brake for the dog.", "KEEP, STRAIGHT")
    assert "template" not in first.extra


def test_csv_says_the_same_as_jsonl(root):
    rows = [
        row(speed=3.5, command="go straight"),
        row(frame="000011", meta_action=None, future_path=BRAKING, question="What, now?", answer="Brake."),
    ]
    write(root, *rows)
    with (root / "table.csv").open("w", encoding="utf-8-sig", newline="") as file:  # as spreadsheets write it
        table = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        table.writeheader()
        table.writerows(
            {key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in r.items()} for r in rows
        )
    as_lines = [sample.model_copy(update={"split": "table"}) for sample in read(root)]
    assert read(root, "table") == read(root, "table.csv") == as_lines


@pytest.mark.parametrize("name", [12, "12", "000012", "0012"])
def test_zeros_before_a_number_do_not_matter(root, name):
    write(root, row(frame=name))
    assert [sample.frame for sample in read(root)] == ["a/12"]


def test_clips_have_one_to_six_cameras_in_the_usual_order(tmp_path):
    for count in range(1, 7):
        for camera in reversed(CAMERAS[-count:]):
            picture(tmp_path / "night" / f"c{count}" / camera / "left turn.png")
    write(tmp_path, *(row(clip=f"night/c{count}", frame="left turn") for count in range(1, 7)))
    assert [list(sample.images) for sample in read(tmp_path)] == [list(CAMERAS[-count:]) for count in range(1, 7)]


def test_one_camera_needs_no_folder(tmp_path):
    picture(tmp_path / "a" / "12.png")
    (tmp_path / "a" / "notes.txt").write_text("rain")
    (tmp_path / "a" / "._12.png").write_text("left by a file manager")
    write(tmp_path, row())
    assert [sample.images for sample in read(tmp_path)] == [{"CAM_FRONT": str(tmp_path / "a" / "12.png")}]


def test_everything_that_is_wrong_is_said_at_once(root):
    picture(root / "b" / "CAM_TOP" / "1.jpg")
    picture(root / "c" / "CAM_BACK" / "1.jpg")
    picture(root / "c" / "CAM_BACK" / "01.png")
    picture(root / "d" / "CAM_FRONT" / "1.jpg")
    picture(root / "d" / "1.jpg")
    rows = {
        "every moment once": row(frame="0012"),
        "a picture of frame 13 of CAM_FRONT": row(frame=13),
        "one of CAM_FRONT, ": row(clip="b", frame=1),
        "one picture of frame 1": row(clip="c", frame=1),
        "pictures of CAM_FRONT in one place": row(clip="d", frame=1),
        "no such clip": row(clip="nowhere"),
        "a folder inside the data root": row(clip="../a"),
        "a folder inside the data root ": row(clip="."),
        "SPEED, PATH with a SPEED of KEEP": row(frame=1, meta_action="KEEP, FLY"),
        "either meta_action or future_path": row(frame=2, meta_action=None),
        "meta_action and future_path": row(frame=3, future_path=BRAKING),
        "either frame or time": row(frame=None),
        "frame and time": row(frame=4, time=1.5),
        "greater than or equal to 0": row(frame=5, speed=-1),
        "a finite number": row(frame=6, speed=float("nan")),
        "row 17, speed": row(frame=7, speed=True),
        "row 18, future_path": row(frame=8, meta_action=None, future_path=BRAKING[:5]),
        "row 19, command": row(frame=9, command="fly"),
        "a known key": row(frame=10, sped=3),
        "the name of a clip": row(clip=" "),
    }
    write(root, row(), *rows.values())
    found = problems(root)
    assert all(sum(words.strip() in text for text in found) >= 1 for words in rows), found
    assert sum("a folder inside the data root" in text for text in found) == 2
    assert len(found) == len(rows)


def test_nothing_is_asked_about_without_labels(root):
    assert "a file of labels" in problems(root)[0]
    write(root, row(), name="night.jsonl")
    assert "--file) night" in problems(root)[0]
    (root / "labels.csv").write_text('clip,frame\na,"12')
    assert "a CSV file" in problems(root)[0]
    (root / "labels.csv").write_text("clip,frame,meta_action\na,12,KEEP,STRAIGHT\n")
    assert "more cells than columns" in " ".join(problems(root))
