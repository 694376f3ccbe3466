"""DriveLM-nuScenes (arXiv 2312.14150): six cameras, a graph of questions per key frame.

    scene token -> {scene_description, key_frames: frame token -> {key_object_infos, QA, image_paths}}
    QA: perception | prediction | planning | behavior -> [{Q, A, C, con_up, con_down, cluster, layer, (tag)}]

The files are looked for in `ROOT/QA_dataset_nus/` and `ROOT/`, the pictures below `ROOT/nuscenes/samples/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from drivedistill.data.paths import find, load_json, published
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Regime, Sample, Task

FILES = {
    "train": ("v1_1_train_nus.json", "v1_0_train_nus.json"),
    "val": ("v1_1_val_nus_q_only.json", "v1_0_val_nus_q_only.json"),
    "challenge": ("test_eval.json",),
}
"""Our name of a file -> its published names, the preferred one first."""

TASKS: tuple[Task, ...] = get_args(Task)
"""In the order in which `convert2llama.py` numbers the questions of a frame."""


@dataclass
class _Place:
    """Where the reader stands: what a problem must name."""

    root: Path
    file: Path
    split: str
    regime: Regime
    scene: str = ""
    frame: str = ""
    problems: list[Problem] = field(default_factory=list)

    def complain(self, where: str, expected: str, found: str, remedy: str) -> None:
        parts = (f"scene {self.scene}", f"frame {self.frame}" if self.frame else "", where)
        self.problems.append(Problem(str(self.file), ", ".join(filter(None, parts)), expected, found, remedy))

    def mapping(self, parent: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        """`parent[key]` if it is an object; otherwise a problem, and nothing to read."""
        value = parent.get(key)
        if isinstance(value, dict):
            return value
        found = f"a JSON {type(value).__name__}" if key in parent else "nothing"
        self.complain(where or key, f"an object `{key}`", found, "restore the key from the published file")
        return {}


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read a DriveLM file.

    Args:
        root: The folder that holds `QA_dataset_nus/` (or the JSON itself) and `nuscenes/`.
        file: `train`, `val`, `challenge`, the name of another file in `QA_dataset_nus/` without `.json`, or the path of
            a JSON file relative to the root.
        regime: `regular` or `corner`; the format does not say.

    Yields:
        Samples with the id `{scene}_{frame}_{i}`, i counting perception, prediction, planning and behavior together:
        the ids of `test_llama.json` and of a challenge submission. A blank answer stays blank; none at all is None,
        and so is a blank one in a file of questions only (`*q_only*`).

    Raises:
        InputError: After the last sample, with every record that could not be read.
    """
    names = FILES.get(file)
    ours = [f"QA_dataset_nus/{file}.json"] if not Path(file).suffix else []
    candidates = [f"{folder}{name}" for name in names for folder in ("QA_dataset_nus/", "")] if names else [*ours, file]
    place = _Place(root, find(root, candidates, f"DriveLM's `{file}` file"), file, regime)
    scenes = load_json(place.file, "a DriveLM file: an object of scenes")
    for scene in scenes:
        place.scene, place.frame = scene, ""
        body = place.mapping(scenes, scene, "the scene")
        if body:
            yield from _scene(place, body)
    if place.problems:
        raise InputError(place.problems)


def _scene(place: _Place, scene: dict[str, Any]) -> Iterator[Sample]:
    shared = {key: value for key, value in scene.items() if key != "key_frames" and value is not None}
    frames = place.mapping(scene, "key_frames")
    for token in frames:
        place.frame = token
        frame = place.mapping(frames, token, "the frame")
        if frame:
            rest = {
                key: value for key, value in frame.items() if key not in ("QA", "image_paths") and value is not None
            }
            yield from _frame(place, frame, {**shared, **rest})


def _frame(place: _Place, frame: dict[str, Any], shared: dict[str, Any]) -> Iterator[Sample]:
    images = _images(place, place.mapping(frame, "image_paths"))
    questions = place.mapping(frame, "QA")
    for task in questions:
        if task not in TASKS:
            place.complain(f"QA.{task}", f"one of {', '.join(TASKS)}", task, "rename the task, or move its questions")
    index = -1
    for task in TASKS:
        items = questions.get(task) or []
        if not isinstance(items, list):
            place.complain(f"QA.{task}", "a list of questions", f"a JSON {type(items).__name__}", "make it a list")
            continue
        for position, item in enumerate(items):
            index += 1
            sample = _sample(place, task, f"{task}[{position}]", index, item, images, shared)
            if sample:
                yield sample


def _images(place: _Place, paths: dict[str, Any]) -> dict[str, str]:
    """Camera -> absolute path, in the order of `CAMERAS`."""
    images: dict[str, str] = {}
    for camera, value in paths.items():
        where = f"image_paths.{camera}"
        path = published(place.root, value) if isinstance(value, str) and value.strip() else None
        if camera not in CAMERAS:
            place.complain(where, f"one of {', '.join(CAMERAS)}", camera, "correct the camera's name")
        elif not isinstance(value, str) or not value.strip():
            place.complain(where, "the path of a picture", repr(value), "restore the path from the published file")
        elif path is None:
            remedy = "write the path relative to the data root, e.g. ../nuscenes/samples/CAM_FRONT/x.jpg"
            place.complain(where, "a path inside the data root", value, remedy)
        else:
            images[camera] = str(path)
    if not paths:
        place.complain("image_paths", "at least one camera", "none", "restore the paths from the published file")
    return {camera: images[camera] for camera in CAMERAS if camera in images}


def _sample(
    place: _Place, task: Task, where: str, index: int, item: Any, images: dict[str, str], shared: dict[str, Any]
) -> Sample | None:
    if not isinstance(item, dict):
        place.complain(where, "an object with Q and A", f"a JSON {type(item).__name__}", "restore the question")
        return None
    question, answer, tag = item.get("Q"), item.get("A"), item.get("tag")
    tags = [tag] if isinstance(tag, int) else tag or []
    before = len(place.problems)
    if not isinstance(question, str) or not question.strip():
        found = repr(question) if "Q" in item else "nothing"
        place.complain(f"{where}.Q", "a question", found, "restore the question")
    if answer is not None and not isinstance(answer, str):
        place.complain(f"{where}.A", "a text or null", repr(answer), "write the answer as a text")
    if not isinstance(tags, list) or any(type(item) is not int for item in tags):
        place.complain(f"{where}.tag", "a list of whole numbers", repr(tag), "use DriveLM's tags: 0, 1, 2, 3")
    if len(place.problems) > before:
        return None
    if not answer and "q_only" in place.file.name:
        answer = None  # the published validation file leaves every answer blank
    rest = {key: value for key, value in item.items() if key not in ("Q", "A", "tag") and value is not None}
    return Sample(
        id=f"{place.scene}_{place.frame}_{index}",
        dataset="drivelm",
        scene=place.scene,
        frame=place.frame,
        split=place.split,
        regime=place.regime,
        task=task,
        question=str(question),
        answer=answer,
        images=images,
        tags=tuple(tags),
        extra={**shared, **rest},
    )
