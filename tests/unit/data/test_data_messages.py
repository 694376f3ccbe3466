"""Conversations as LLaMA-Factory and Drive-KD keep them; the six records are our own words in the published form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from drivedistill.data import READERS
from drivedistill.data.messages import ALIASES
from drivedistill.data.prompt import POINT
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS

LISTED = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT")
"""The order of some published records."""
DRIVE = "n099-2030-01-02-03-04-05+0800"
SIZE = (160, 90)


def six(time: int = 7) -> list[str]:
    return [f"nuscenes/samples/{camera}/{DRIVE}__{camera}__{time}.jpg" for camera in LISTED]


def record(question: str, answer: str | None, kind: str | None, images: list[str], **more: object) -> dict:
    turns = [{"role": "user", "content": question}]
    turns += [] if answer is None else [{"role": "assistant", "content": answer}]
    return {"messages": turns, "images": images, "question_type": kind} | more


def published() -> list[dict]:
    """One record of each kind of question."""
    one, pictures, van = ["100k/train/0a1b.jpg"], "<image>" * 6, "<c1,CAM_BACK,0.1,0.9>"
    return [
        record("<image>Does <c1,CAM_FRONT,0.5,0.25> move? A. No. B. Yes.", "Final: {B. Yes.}  \nA bus", "perception", one),
        record(pictures + "Which objects matter here?", f"- {van}\nIDs: {van}", "perception", six()),
        record(pictures + "What is noticed first?", "First: <c1,CAM_FRONT,4.32,0.85>, a pedestrian", "reasoning", six()),
        record(pictures + "Predict the behavior of the ego vehicle. A. Slow. B. Fast.", "Final: A. Slow.", "reasoning", six(8)),
        record("<image>What could be done about <c1,CAM_FRONT,0.2,0.5>?", "Action: brake", "planning", one),
        record("<image>What leads to a collision with<c1,CAM_FRONT,0.2,0.5>", None, "planning", ["100k/train/9z.jpg"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("messages")
    for item in published():
        for path in item["images"]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE).save(root / path)
    return root


def read(root: Path, content: object, name: str = "demo.json") -> list:
    (root / name).write_text(json.dumps(content) if name.endswith(".json") else str(content), "utf-8")
    return list(READERS["messages"](root, name.partition(".")[0], regime="corner"))


def problems(root: Path, *records: object) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(root, list(records))
    assert all(problem.expected and problem.remedy and problem.file for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def one(root: Path, **changes: object):
    (sample,) = read(root, [published()[1] | changes])
    return sample


# --- what is read ---------------------------------------------------------------------------------------------------


def test_the_six_records_become_samples(root):
    samples = read(root, published())
    assert [sample.task for sample in samples] == [
        "perception", "perception", "prediction", "behavior", "planning", "planning"
    ]  # fmt: skip
    assert [sample.capability for sample in samples][2:4] == ["reasoning", "reasoning"]
    assert [sample.id for sample in samples] == [f"demo_{number}" for number in range(6)]
    assert {(s.dataset, s.split, s.regime) for s in samples} == {("messages", "demo", "corner")}
    assert samples[3].answer == "Final: A. Slow." and samples[5].answer is None
    assert samples[0].answer == "Final: {B. Yes.}  \nA bus"


def test_views_are_in_nuscenes_order_whatever_the_records_is(root):
    sample = one(root)
    assert tuple(sample.images) == CAMERAS
    assert all(f"/{camera}/" in path and Path(path).is_file() for camera, path in sample.images.items())


def test_pictures_without_a_camera_in_their_paths_are_taken_in_order(root):
    images = [f"b/{number}.jpg" for number in range(3)]
    (sample,) = read(root, [record("<image><image><image>What?", "That.", "planning", images)])
    assert {camera: Path(path).name for camera, path in sample.images.items()} == {
        "CAM_FRONT": "0.jpg", "CAM_FRONT_LEFT": "1.jpg", "CAM_FRONT_RIGHT": "2.jpg"
    }  # fmt: skip


def test_records_of_one_drive_share_a_scene_and_those_of_one_moment_a_frame(root):
    samples = read(root, published())
    assert [sample.scene for sample in samples] == ["0a1b", DRIVE, DRIVE, DRIVE, "0a1b", "9z"]
    assert [sample.frame for sample in samples[1:4]] == [f"{DRIVE}_7", f"{DRIVE}_7", f"{DRIVE}_8"]


@pytest.mark.parametrize("key", ["scene", "scene_token"])
def test_a_record_may_name_its_scene(key, root):
    sample = one(root, **{key: "scene-0916"})
    assert (sample.scene, sample.frame, sample.extra) == ("scene-0916", f"{DRIVE}_7", {})


def test_points_become_pixels_of_the_picture_also_those_outside_it(root):
    samples = read(root, published())
    assert samples[0].question == "Does <c1,CAM_FRONT,80.0,22.5> move? A. No. B. Yes."
    assert samples[1].answer == "- <c1,CAM_BACK,16.0,81.0>\nIDs: <c1,CAM_BACK,16.0,81.0>"
    assert POINT.findall(samples[2].answer) == [("c1", "CAM_FRONT", "691.2", "76.5")]


def test_points_in_pixels_stay(root):
    words = "Does <c1,CAM_FRONT,120.5,44.0> move, unlike <c2,CAM_FRONT,1,0>?"
    (sample,) = read(root, [record(f"{words} And <c3,CAM_FRONT,30.0,40.0>?", "No.", "p", ["100k/train/9z.jpg"])])
    assert sample.question.startswith(words)


def test_leading_placeholders_go_and_those_in_a_sentence_name_their_picture(root):
    item = published()[1]
    item["messages"][0]["content"] = (
        "<image>\n<image> Is the van of <image> the one in <image>, not in <image>, <image>?"
    )
    (sample,) = read(root, [item])
    assert sample.question == "Is the van of CAM_FRONT_RIGHT the one in CAM_BACK_RIGHT, not in CAM_BACK, CAM_BACK_LEFT?"
    assert tuple(sample.images) == CAMERAS


def test_a_question_without_placeholders_has_all_pictures(root):
    item = published()[1]
    item["messages"][0]["content"] = "Which objects matter here?"
    assert read(root, [item])[0] == one(root)


@pytest.mark.parametrize("key", ["data", "items", "samples", "dataset", "records"])
def test_records_may_lie_in_an_object(key, root):
    assert read(root, {key: published(), "about": "six records"}) == read(root, published())


def test_records_may_stand_one_per_line(root):
    plain = read(root, published())
    (root / "demo.json").unlink()
    assert read(root, "\n".join(map(json.dumps, published())) + "\n", "demo.jsonl") == plain
    (root / "demo.jsonl").unlink()


def test_question_and_answer_may_be_keys(root):
    item = published()[1]
    asked, answered = (turn["content"] for turn in item.pop("messages"))
    assert read(root, [item | {"question": asked, "answer": answered}]) == [one(root)]


def test_what_has_no_place_in_a_sample_is_kept(root):
    sample = one(root, id=12, annotator="a model", score=0.5)
    assert (sample.id, sample.extra) == ("12", {"annotator": "a model", "score": 0.5})


@pytest.mark.parametrize("prefix", ["", "./", "data/", "../", ".../"])
def test_published_spellings_of_a_path_mean_the_data_root(prefix, root):
    assert one(root, images=[prefix + path for path in six()]) == one(root)


@pytest.mark.parametrize(
    ("said", "task"),
    [
        *ALIASES.items(),
        ("Perception-MCQ", "perception"),
        (" Logical Reasoning ", "reasoning"),
        ("planning vqa", "planning"),
    ],
)
def test_aliases_of_the_type(said, task, root):
    for key in ("question_type", "type", "capability"):
        item = {name: value for name, value in published()[1].items() if name != "question_type"}
        (sample,) = read(root, [item | {key: said}])
        assert sample.task == ("prediction" if task == "reasoning" else task)


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"question_type": "driving"}, "perception, reasoning or planning"),
        ({"question_type": None}, "perception, reasoning or planning"),
        ({"messages": []}, "one turn"),
        ({"messages": "What?"}, "one turn"),
        ({"messages": [{"role": "system", "content": "You drive."}, {"role": "user", "content": "What?"}]}, "one turn"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "one turn"),
        ({"messages": [{"role": r, "content": "x"} for r in ("user", "assistant") * 2]}, "one turn"),
        ({"messages": [{"role": "user", "content": "<image>" * 6}]}, "a question in words"),
        ({"messages": [{"role": "user", "content": "<image>What?"}]}, "as many <image> as pictures"),
        ({"question": None}, "texts `question` and `answer`"),
        ({"images": []}, "a list of paths"),
        ({"images": "a.jpg"}, "a list of paths"),
        ({"images": [*six()[:5], None]}, "a list of paths"),
        ({"images": [*six()[:5], six()[0]]}, "of different cameras"),
        ({"images": [*six()[:5], "a.jpg"]}, "of different cameras"),
        ({"images": [f"{number}.jpg" for number in range(7)]}, "at most six pictures"),
        ({"images": [f"../../{path}" for path in six()]}, "inside the data root"),
    ],
)
def test_what_is_wrong_is_named(changes, expected, root):
    found = problems(root, published()[1], published()[1] | changes)
    assert all("record 1" in problem for problem in found)
    assert any(expected in problem for problem in found)


def test_everything_is_said_at_once(root):
    bad = [published()[1] | {"question_type": "x"}, "no record", published()[4] | {"images": []}]
    assert [problem.split(",")[0].split()[-1] for problem in problems(root, *bad)] == ["0", "1", "2"]


def test_points_in_pictures_that_are_not_there_are_named(root):
    other, lost = published()[0], published()[4]
    other["messages"][1]["content"] = "Beside <c2,CAM_BACK,0.1,0.2>"
    lost["images"] = ["100k/train/lost.jpg"]
    found = problems(root, other, lost)
    assert "a point in CAM_BACK" in found[0] and "lost.jpg" in found[1]


@pytest.mark.parametrize("content", [{"rows": []}, {"data": [], "items": []}, 7])
def test_a_file_of_another_shape_is_refused(content, root):
    with pytest.raises(InputError, match="a list of conversations"):
        read(root, content, "other.json")


def test_bad_lines_are_all_named(root):
    with pytest.raises(InputError) as caught:
        read(root, '{"a": 1\n{"b": 1, "b": 2}\n', "lines.jsonl")
    assert [problem.record for problem in caught.value.problems] == ["line 1", "line 2"]


def test_a_data_set_is_split_by_drive(root):
    from drivedistill import sections as cards
    from drivedistill.data.mixture import load_mixture

    read(root, published())
    source = cards.Source(name="m", format="messages", root=root, regime="regular", file="demo", split_by="scene")
    splits = load_mixture([source])
    scenes = [{sample.scene for sample in samples} for samples in splits.values()]
    assert sum(map(len, splits.values())) == 6 and len(set.union(*scenes)) == sum(map(len, scenes))
