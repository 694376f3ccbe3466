"""What a DriveLM data set says about its pictures: objects with their places, closed questions, and the world's truth.

A fact is an answer, the thing that it is about and, if it is about an object, the object's place. Facts that are of one
kind and are asked in one wording are learnt by one head (`lessons.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, Field

from drivedistill.data.choices import in_words
from drivedistill.data.mixture import load_mixture
from drivedistill.data.paths import under
from drivedistill.data.points import picture_size
from drivedistill.data.prior import NUMBER, OBJECT, TAG, template_name
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Row, Sample, read_jsonl
from drivedistill.sections import Source

ATTRIBUTES = ("Category", "Status", "Visual_description")
"""Of a key object, as DriveLM names them."""
SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Place:
    """A point of a picture."""

    view: int
    """Index in `CAMERAS`."""
    x: float
    y: float
    """Shares of the picture's width and height."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that the data set knows about a frame."""

    kind: str
    """The kind of question, or the attribute's name."""
    wording: str
    """The question without options and with its object masked; attributes have none."""
    answer: str
    place: Place | None = None
    """Of the object that it is about; None for the whole frame."""
    view: int | None = None
    """Index of the camera that the question names; None where it names none."""


@dataclass(slots=True)
class Frame:
    """One moment: its pictures and what is known about them."""

    images: dict[str, str]
    """Camera -> absolute path."""
    facts: list[Fact] = field(default_factory=list)
    measures: dict[Place, tuple[float, float, float]] = field(default_factory=dict)
    """Distance, and place ahead and to the left of the ego car, in metres."""
    speed: float = 0.0
    """Of the ego car in metres per second; 0 where it is not known."""


class Truth(Row):
    """A line of `truth/{file}.jsonl`, which the embedded world writes beside its questions; what is not read is allowed."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    called = "key frames of the embedded world"

    scene: str
    frame: str
    road: str = ""
    weather: str = ""
    light: str = ""
    speed: float = 0.0
    action: dict[str, str] = Field(default_factory=dict)


def read_frames(sources: Sequence[Source]) -> dict[str, list[Frame]]:
    """The frames of a recipe's DriveLM sources, split by split; other sources, and splits but train and val, are not read.

    Every kind of question is read, whichever of them the recipe teaches its model: they cost nothing more here.

    Returns:
        `train` and `val`; the latter may be empty.

    Raises:
        InputError: The recipe has no such source, or its files cannot be read.
    """
    chosen = [source for source in map(_needed, sources) if source]
    if not chosen:
        found = ", ".join(dict.fromkeys(source.format for source in sources))
        remedy = "add a source of format drivelm with a train split; its objects and closed questions are learnt from"
        raise InputError(Problem("recipe", "data.sources", "a source of format drivelm to learn from", found, remedy))
    splits = load_mixture(chosen)
    truth = _truth(chosen)
    return {split: _grouped(splits.get(split, []), truth) for split in SPLITS}


def _needed(source: Source) -> Source | None:
    """The source without what is not looked at; None if nothing is left."""
    if source.format != "drivelm":
        return None
    files = {split: file for split, file in source.files.items() if split in SPLITS}
    if source.split_by == "file" and "train" not in files:
        return None
    return Source.model_validate({**source.model_dump(exclude={"templates", "without", "every"}), "files": files})


def _truth(sources: Sequence[Source]) -> dict[tuple[str, str], Truth]:
    """(scene, frame) -> what the world knows, for the files that have it."""
    rows: dict[tuple[str, str], Truth] = {}
    for source in sources:
        for file in source.files.values() if source.split_by == "file" else [source.file]:
            path = under(source.root, f"truth/{file}.jsonl")
            if path is not None and path.is_file():
                rows |= {(row.scene, row.frame): row for row in read_jsonl(path, Truth)}
    return rows


def _grouped(samples: Sequence[Sample], truth: dict[tuple[str, str], Truth]) -> list[Frame]:
    frames: dict[tuple[str, str], Frame] = {}
    for sample in samples:
        name = (sample.scene, sample.frame)
        if name not in frames:
            frames[name] = _described(sample, truth.get(name))
        frames[name].facts += question_facts(sample)
    return list(frames.values())


def _described(sample: Sample, truth: Truth | None) -> Frame:
    """A frame with what does not come from questions."""
    frame = Frame(sample.images)
    objects: dict[str, dict[str, Any]] = sample.extra.get("key_object_infos", {})
    for tag, infos in objects.items():
        if (place := place_of(tag, sample)) is None:
            continue
        frame.facts += [Fact(name, "", str(infos[name]), place) for name in ATTRIBUTES if infos.get(name)]
        if measured := _measures(infos):
            frame.measures[place] = measured
    if truth is not None:
        known = {"road": truth.road, "weather": truth.weather, "light": truth.light, **truth.action}
        frame.facts += [Fact(f"truth: {name}", "", answer) for name, answer in known.items() if answer]
        frame.speed = truth.speed
    return frame


def _measures(infos: dict[str, Any]) -> tuple[float, float, float] | None:
    distance, ego = infos.get("distance"), infos.get("ego_xy")
    numbers = [distance, *ego] if isinstance(ego, list) else []
    if len(numbers) != 3 or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def question_facts(sample: Sample) -> Iterator[Fact]:
    """What a question and its answer say, if it names at most one object; a multiple choice says its option's words."""
    read = in_words(sample)
    tags = set(TAG.findall(read.question))
    place = place_of(tags.pop(), sample) if len(tags) == 1 else None
    if not read.answer or tags or (place is None and TAG.search(read.question)):
        return
    wording = TAG.sub("<OBJ>", read.question)
    view = next((index for index, camera in enumerate(CAMERAS) if re.search(rf"\b{camera}\b", wording)), None)
    yield Fact(template_name(sample), wording, read.answer.strip(), place, view)


def place_of(tag: str, sample: Sample) -> Place | None:
    """Where `<c1,CAM_FRONT,62.5,51.0>` points to, in pixels of the picture on disk.

    None for what is no such place, and for one in a camera of which the sample has no picture: nothing can be seen there.

    Raises:
        InputError: The picture cannot be read.
    """
    match = OBJECT.fullmatch(tag)
    if match is None:
        return None
    _, camera, x, y = match.groups()
    if camera not in sample.images or not (NUMBER.fullmatch(x) and NUMBER.fullmatch(y)):
        return None
    width, height = picture_size(sample, camera)
    return Place(CAMERAS.index(camera), float(x) / width, float(y) / height)
