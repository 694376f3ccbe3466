"""CODA-LM (arXiv 2404.10595): one front camera, rare objects, long answers.

    ROOT/CODA-LM/{Train,Val,Test,Mini}/{val_0001,test_0001,...}.json     one file per picture
    ROOT/{val,test}/images/0001.jpg                                      or ROOT/CODA2022/{val,test}/images/

Every file gives a general question (perception), a suggestion (planning) and one question per region (perception, with
a red rectangle around the object). The one-line-per-question files of `convert2vqa.py` are read as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from drivedistill.data.paths import find, load_json, under
from drivedistill.problems import InputError, Problem
from drivedistill.records import Regime, Region, Row, Sample, Task, read_jsonl

CAMERA = "CAM_FRONT"
PREAMBLE = "There is an image of traffic captured from the perspective of the ego car. "
GENERAL = (
    PREAMBLE + "Focus on objects influencing the ego car's driving behavior: vehicles (cars, trucks, buses, etc.), "
    "vulnerable road users (pedestrians, cyclists, motorcyclists), traffic signs (no parking, warning, directional, "
    "etc.), traffic lights (red, green, yellow), traffic cones, barriers, miscellaneous(debris, dustbin, animals, "
    "etc.). You must not discuss any objects beyond the seven categories above. Please describe each object's "
    "appearance, position, direction, and explain why it affects the ego car's behavior."
)
SUGGESTION = PREAMBLE + "Please provide driving suggestions for the ego car based on the current scene."
REGION = "Please describe the object inside the red rectangle in the image and explain why it affect ego car driving."
"""The questions of `convert2vqa.py`, letter by letter."""

TEXT = "description and explanation"
FOLDERS = ("val", "test")


class VqaLine(Row):
    """A line of CODA-LM's question files; the test files have no answers."""

    called = "questions of CODA-LM"

    question_id: int
    image: str
    question: str
    answer: str | None = None


class Question(NamedTuple):
    """What one file asks about its picture."""

    name: str
    task: Task
    text: str
    answer: str | None
    region: Region | None
    extra: dict[str, Any]


@dataclass
class _Place:
    """Where the reader stands: what a problem must name."""

    root: Path
    split: str
    regime: Regime
    answered: bool
    file: Path = Path()
    problems: list[Problem] = field(default_factory=list)

    def complain(self, where: str, expected: str, value: Any, remedy: str) -> None:
        found = "nothing" if value is None else repr(value) if len(repr(value)) < 120 else f"{repr(value)[:117]}..."
        self.problems.append(Problem(str(self.file), where, expected, found, remedy))

    def text(self, parent: dict[str, Any], key: str, where: str) -> str | None:
        """An answer; it may be absent in the test split only."""
        value = parent.get(key)
        if not isinstance(value, str) and (value is not None or self.answered):
            self.complain(where, "a text", value, "restore it from the published file")
        return value if isinstance(value, str) else None

    def mapping(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        if not isinstance(value, dict) and (value is not None or self.answered):
            self.complain(key, "an object", value, "restore it from the published file")
        return value if isinstance(value, dict) else {}


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read a folder of CODA-LM annotations, one annotation, or a file of its question-answer conversion.

    Args:
        root: The folder that holds `CODA-LM/` and `val/`, `test/` (or `CODA2022/`).
        file: `Train`, `Val`, `Test`, `Mini`; a folder or JSON file relative to the root; or a `.jsonl` file (also
            the `.json` ones that `convert2vqa.py` writes into `vqa_anno/`).
        regime: `corner`, unless the recipe has another use for the pictures.

    Yields:
        Samples with ids like `val_0001_general`, `val_0001_suggestion`, `val_0001_region_1`. CODA-LM does not say
        which pictures come from one drive, so every picture is a scene of its own.

    Raises:
        InputError: After the last sample, with every record that could not be read.
    """
    path = find(root, [f"CODA-LM/{file}", file], f"CODA-LM's `{file}`")
    place = _Place(root, file, regime, answered=Path(file).name.lower() != "test", file=path)
    if path.is_file() and (path.suffix == ".jsonl" or path.parent.name == "vqa_anno"):
        yield from _lines(place)
    else:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            place.complain("", "annotations such as val_0001.json", None, "unpack CODA-LM into the data root")
        for place.file in files:
            yield from _picture(place)
    if place.problems:
        raise InputError(place.problems)


def _picture(place: _Place) -> Iterator[Sample]:
    name = place.file.stem
    folder, _, number = name.partition("_")
    if folder not in FOLDERS or not number:
        place.complain("", "a name like val_0001.json or test_0001.json", place.file.name, "rename or remove the file")
        return
    try:
        data = load_json(place.file, "a CODA-LM annotation: a JSON object")
    except InputError as error:
        place.problems += error.problems
        return
    image = _image(place.root, f"{folder}/images/{number}.jpg")
    for question in _questions(place, data):
        yield _sample(place, name, question, str(image))


def _questions(place: _Place, data: dict[str, Any]) -> Iterator[Question]:
    """The questions of one annotation, in the order general, suggestion, regions."""
    rest = {
        key: value
        for key, value in data.items()
        if key not in ("general_perception", "region_perception", "driving_suggestion")
    }
    general = place.mapping(data, "general_perception")
    lists = {key: value for key, value in general.items() if key != TEXT}
    extra = rest | ({"general_perception": lists} if lists else {})
    answer = place.text(general, TEXT, f"general_perception.{TEXT}") if general or not place.answered else None
    yield Question("general", "perception", GENERAL, answer, None, extra)
    answer = place.text(data, "driving_suggestion", "driving_suggestion")
    yield Question("suggestion", "planning", SUGGESTION, answer, None, rest)
    for key, value in place.mapping(data, "region_perception").items():
        where = f"region_perception.{key}"
        if not isinstance(value, dict):
            place.complain(where, "an object", value, "restore it from the published file")
            continue
        region = _region(place, value, where)
        answer = place.text(value, TEXT, f"{where}.{TEXT}")
        unused = {name: item for name, item in value.items() if name not in (TEXT, "box", "category_name")}
        if region is not None:
            yield Question(f"region_{key}", "perception", REGION, answer, region, rest | unused)


def _region(place: _Place, value: dict[str, Any], where: str) -> Region | None:
    box, category = _box(value.get("box")), value.get("category_name") or ""
    if box is None:
        expected = "[x, y, width, height] in pixels, width and height above 0"
        place.complain(f"{where}.box", expected, value.get("box"), "restore the box from the published file")
        return None
    if not isinstance(category, str):
        place.complain(f"{where}.category_name", "a text", category, "restore it from the published file")
        return None
    return Region(camera=CAMERA, box=box, category=category)


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4 or any(type(item) not in (int, float) for item in value):
        return None
    x, y, width, height = map(float, value)
    return (x, y, width, height) if all(map(math.isfinite, value)) and min(width, height) > 0 else None


def _lines(place: _Place) -> Iterator[Sample]:
    """The question-answer conversion. Its region pictures already carry the rectangle, so no region is drawn."""
    for line in read_jsonl(place.file, VqaLine):
        image = _image(place.root, line.image)
        if image is None:
            remedy = "write the path relative to the data root, e.g. val/images/0001.jpg"
            place.complain(f"question_id {line.question_id}", "a path inside the data root", line.image, remedy)
            continue
        number, _, region = image.stem.partition("_object_")
        name = f"{image.parent.parent.name}_{number}"
        task: Task = "planning" if "suggestion" in line.question else "perception"
        kind = f"region_{region}" if region else "suggestion" if task == "planning" else "general"
        yield _sample(place, name, Question(kind, task, line.question, line.answer, None, {}), str(image))


def _image(root: Path, relative: str) -> Path | None:
    """The picture in `ROOT/` or, where CODA was unpacked beside CODA-LM, in `ROOT/CODA2022/`."""
    plain, nested = under(root, relative), under(root, f"CODA2022/{relative}")
    return nested if plain and nested and nested.parent.is_dir() else plain


def _sample(place: _Place, name: str, question: Question, image: str) -> Sample:
    return Sample(
        id=f"{name}_{question.name}",
        dataset="coda_lm",
        scene=name,
        frame=name,
        split=place.split,
        regime=place.regime,
        task=question.task,
        question=question.text,
        answer=question.answer,
        images={CAMERA: image},
        region=question.region,
        extra=question.extra,
    )
