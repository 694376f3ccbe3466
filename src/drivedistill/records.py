"""The rows that flow between the stages, and their JSONL files.

    data set --reader--> Sample --model--> Prediction --scorer--> Score

A `Sample` is one question about one moment of driving. This one is real (DriveLM, shortened):

    {"id": "f0f1..._4a07..._0", "dataset": "drivelm", "scene": "f0f1...", "frame": "4a07...", "split": "train",
     "regime": "regular", "task": "perception",
     "question": "What is the moving status of object <c1,CAM_BACK,1088.3,497.5>?", "answer": "Turn left.",
     "images": {"CAM_FRONT": "nuscenes/samples/CAM_FRONT/n008....jpg", ...}}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from drivedistill.problems import InputError, Problem, missing_file

Regime = Literal["regular", "corner"]
Task = Literal["perception", "prediction", "planning", "behavior"]
Capability = Literal["perception", "reasoning", "planning"]

CAMERAS = (
    "CAM_FRONT",
    "CAM_FRONT_LEFT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)
"""nuScenes cameras in DriveLM's order; views always travel in this order."""

CAPABILITY: dict[str, Capability] = {
    "perception": "perception",
    "prediction": "reasoning",
    "behavior": "reasoning",
    "planning": "planning",
}
"""Drive-KD's three capabilities as a function of the task."""

TAG = re.compile(r"(literal|list|dict|tuple|function-[a-z]+)\[.*\]|constrained-[a-z]+", re.DOTALL)
"""What pydantic puts into a place to say which alternative of a union it means."""

CLEAN = "clean"
"""The condition of pictures that are as the data set has them."""

MISFIT = "misfit"
"""The type of error under which `refuse_together` sends findings through pydantic."""


class Row(BaseModel):
    """A line of a JSONL file: immutable, typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    called: ClassVar[str] = "rows"
    """What such lines are to a user, for messages."""


class Region(Row):
    """A box in one camera picture: `x, y` is its upper left corner; pixels of the picture as it lies on disk."""

    camera: str
    box: tuple[float, float, float, float]
    """x, y, width, height"""
    category: str = ""


class Sample(Row):
    """One question about one moment of driving.

    `images` maps cameras to files: absolute paths in memory, relative to the data root in a JSONL file.
    Points in question and answer are pixels of the picture on disk (`<c1,CAM_BACK,1088.3,497.5>`); a reader whose
    format says 0-1 converts them.
    """

    called = "questions"

    id: str
    dataset: str
    scene: str
    frame: str
    split: str
    regime: Regime
    task: Task
    question: str
    answer: str | None = None
    """None where the data set publishes no answer."""
    images: dict[str, str]
    region: Region | None = None
    meta_action: str | None = None
    future_path: tuple[tuple[float, float], ...] | None = None
    """Positions of the ego vehicle in metres, x right, y forward, at 2 Hz."""
    tags: tuple[int, ...] = ()
    """DriveLM challenge: 0 accuracy, 1 judge, 2 language, 3 match."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Fields of the source that have no place above; kept, never interpreted."""

    @property
    def capability(self) -> Capability:
        """Drive-KD's capability: perception, reasoning or planning."""
        return CAPABILITY[self.task]


class Prediction(Row):
    """What one model answered to one sample, and how it was asked."""

    called = "predictions"

    id: str
    dataset: str
    scene: str
    frame: str
    split: str
    regime: Regime
    task: Task
    question: str
    reference: str | None
    prediction: str
    meta_action: str | None = None
    """What the ego vehicle does next, as a reference: `KEEP, STRAIGHT`."""
    tags: tuple[int, ...] = ()
    model: str
    decode: str
    """`greedy`, `beam-4`, `teacher_forced`, `endpoint` or `unknown` for somebody else's file."""
    condition: str = CLEAN
    """What was done to the pictures before the model saw them: `clean`, `black`, `none`, `shuffled`, `fog:3`, ..."""
    tokens: int | None = None
    confidence: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Mean probability that the model gave the tokens it wrote."""
    latency_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """From the pictures on disk to the last token, one question at a time."""
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def truth(self) -> str:
        """The reference, of an answer that has one.

        Raises:
            ValueError: It has none.
        """
        if self.reference is None:
            raise ValueError(f"prediction {self.id} has no reference; it cannot be scored.")
        return self.reference


class Score(Row):
    """One number of `results.json`."""

    called = "scores"

    name: str
    value: float
    unit: str
    n: int
    dataset: str
    split: str
    regime: str
    task: str
    decode: str
    condition: str = CLEAN
    group: str = ""
    """A part of the set, `kind=snow`; empty for the whole."""
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True
    implementation: str


R = TypeVar("R", bound=Row)


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write rows to `path`, completely or not at all; returns their number."""
    count = 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(row.model_dump_json() + "\n")
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_json(path: Path, value: Any) -> None:
    """Write JSON to `path`, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text to `path`, completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes out of `path`. The system releases the lock when this process ends, however it ends.

    Args:
        file: An open file; the lock is its.
        path: What is locked, for the message.

    Raises:
        InputError: Another process has it.
    """
    import fcntl  # Windows has none, and everybody imports this file

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "wait for the other process, or choose another --out"
        expected = f"a {'folder' if path.is_dir() else 'file'} for this process"
        raise InputError(Problem(str(path), "", expected, "another is writing it", remedy)) from None


def read_jsonl(path: Path, row: type[R], prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> list[R]:
    """Read a JSONL file of `row`s; every bad line is a problem, and all of them are reported at once.

    Args:
        path: The file.
        row: `Sample`, `Prediction` or `Score`.
        prepare: Changes the parsed object before validation.

    Raises:
        InputError: The file is missing, or a line is no JSON object or not a valid row.
    """
    if not path.is_file():
        raise InputError(missing_file(path, f"a JSONL file of {row.called}", "check the path"))
    rows: list[R] = []
    problems: list[Problem] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), "", "UTF-8 text", str(error), "save the file as UTF-8")) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"a JSON {type(value).__name__}")
            if "\\ud" in line.lower():
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could never be written again
            rows.append(row.model_validate(prepare(value) if prepare else value))
        except ValidationError as error:
            problems.extend(validation_problems(error, str(path), f"line {number}"))
        except json.JSONDecodeError as error:
            found = f"{line[:60]!r} ({error.msg}, column {error.colno})"
            problems.append(
                Problem(str(path), f"line {number}", "one JSON object per line", found, "mend or remove the line")
            )
        except (ValueError, RecursionError) as error:
            expected = f"one JSON object per line ({row.called})"
            problems.append(Problem(str(path), f"line {number}", expected, str(error), "mend or remove the line"))
    if problems:
        raise InputError(problems)
    return rows


def refuse_together(problems: Iterable[Problem]) -> None:
    """For validators of several fields: findings that `validation_problems` gives back whole.

    Args:
        problems: Their file is not read; their record is relative to the section that is validated.

    Raises:
        PydanticCustomError: There is one; pydantic hands it on as a `ValidationError`, which is a `ValueError`.
    """
    found = tuple(problems)
    if found:
        text = "; ".join(f"{item.record or 'here'}: expected {item.expected}, found {item.found}" for item in found)
        raise PydanticCustomError(MISFIT, "{text}", {"text": text, "problems": found})


def validation_problems(error: ValidationError, file: str, record: str) -> Iterator[Problem]:
    """Pydantic's findings in our words: one problem per field, however many alternatives the field has."""
    groups: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        parts = tuple(map(str, item["loc"]))
        union = next((place for place, part in enumerate(parts) if TAG.fullmatch(part)), len(parts))
        groups.setdefault(parts[:union], []).append(item)
    for items in groups.values():
        closer = [item for item in items if not item["type"].endswith(("_type", "literal_error"))]
        chosen = closer or items[:1]  # an alternative of the right type says best what is wrong
        expected = " or ".join(dict.fromkeys(_expected(item) for item in items))
        for item in chosen:
            yield from _problems(item, _expected(item) if closer else expected, file, record)


def _problems(item: ErrorDetails, expected: str, file: str, record: str) -> Iterator[Problem]:
    parts = (str(part) for part in item["loc"])
    place = ".".join(part for part in parts if part != "[key]" and not TAG.fullmatch(part))
    where = ", ".join(part for part in (record, place) if part)
    if item["type"] == MISFIT:
        for problem in item["ctx"]["problems"]:
            inside = ".".join(part for part in (place, problem.record) if part)
            yield replace(problem, file=file, record=", ".join(part for part in (record, inside) if part))
        return
    found = repr(item.get("input"))
    found, remedy = found if len(found) <= 120 else f"{found[:117]}...", "correct the value"
    if item["type"] == "extra_forbidden":
        expected, found, remedy = "a known key", f"an unknown one: {found}", "remove the key or correct its spelling"
    elif item["type"] == "missing":
        expected, found, remedy = "a value for this key", "nothing", "add the key"
    yield Problem(file, where, expected, found, remedy)


def _expected(item: ErrorDetails) -> str:
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a mapping, e.g. {key: value}"
    return item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
