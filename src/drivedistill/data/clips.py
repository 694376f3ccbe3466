"""Clips of one's own: folders of pictures or videos, and a file that says what the driver did next.

    ROOT/labels.jsonl (or labels.csv)        one line per labelled moment, see `Label`
    ROOT/CLIP/CAM_FRONT/000012.jpg           where pictures lie: `clip_folder`

This is the form of CLKD's real-world test (Zhao and Fang, ICRA 2026, section IV-B.3): every labelled moment is one
question about the driver's next three seconds.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from drivedistill.data.clip_folder import Clip, frame_name, is_video, open_clip, time_name
from drivedistill.data.paths import find
from drivedistill.data.senna import META_ACTION
from drivedistill.data.senna_rules import (
    FUTURE_POINTS,
    Navigation,
    PathPlan,
    SpeedPlan,
    meta_action,
    meta_action_question,
)
from drivedistill.problems import InputError, Problem
from drivedistill.records import Regime, Row, Sample, read_jsonl, validation_problems

NAME = "clips"
FORMS = (".jsonl", ".csv")
"""Of the file of labels."""


def _clip(text: str) -> str:
    if not text.strip():
        raise ValueError("the name of a clip")
    return PurePosixPath(text.strip().replace("\\", "/")).as_posix()


def _frame(value: Any) -> Any:
    """A number in JSON, a text in CSV."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def _points(value: Any) -> Any:
    """In CSV a path is written as in JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{FUTURE_POINTS} points [[x, y], ...]") from None


def _action(text: str) -> str:
    speed, _, path = (part.strip() for part in text.partition(","))
    if speed not in get_args(SpeedPlan) or path not in get_args(PathPlan):
        speeds, paths = ", ".join(get_args(SpeedPlan)), ", ".join(get_args(PathPlan))
        raise ValueError(f"SPEED, PATH with a SPEED of {speeds} and a PATH of {paths}")
    return f"{speed}, {path}"


Number = Annotated[float, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0)]
Path2D = Annotated[tuple[tuple[Number, Number], ...], Field(min_length=FUTURE_POINTS, max_length=FUTURE_POINTS)]


class Label(Row):
    """One labelled moment."""

    model_config = ConfigDict(str_strip_whitespace=True)

    clip: Annotated[str, AfterValidator(_clip)]
    """Folder below the root, or name of a video without its ending."""
    frame: Annotated[str, BeforeValidator(_frame), AfterValidator(frame_name)] | None = None
    """Name of the picture without its ending, or number of the frame in its video, from 0."""
    time: NotNegative | None = None
    """Instead of the frame: seconds from the beginning of the video."""
    meta_action: Annotated[str, AfterValidator(_action)] | None = None
    """What the driver does in the next three seconds: `KEEP, STRAIGHT`."""
    future_path: Annotated[Path2D, BeforeValidator(_points)] | None = None
    """Instead of the action: where the vehicle is after 0.5, 1, ... 3 s; metres, x right, y forward."""
    speed: NotNegative | None = None
    """m/s"""
    command: Navigation | None = None
    """Where the navigation leads."""
    question: Annotated[str, Field(min_length=1)] | None = None
    """Instead of Senna's question."""
    answer: Annotated[str, Field(min_length=1)] | None = None
    """To `question`, in words; the action by default."""
    regime: Regime | None = None
    """Instead of the regime of the whole source."""

    @property
    def moment(self) -> str:
        """Name of the frame in its camera's folder."""
        return time_name(self.time) if self.time is not None else str(self.frame)

    @property
    def action(self) -> str:
        """The label, from the path where there is one."""
        return str(meta_action(self.future_path)) if self.future_path else str(self.meta_action)


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read labelled moments of clips.

    Args:
        root: The folder of the clips.
        file: The file of labels below it: `labels` finds `labels.jsonl` or `labels.csv`.
        regime: For rows that do not say.

    Yields:
        One sample per row, its id and frame `CLIP/FRAME`, its scene the clip, `extra.clip` too. Without a `question` of
        its own, Senna's is asked; what the row does not tell (speed, command) is left out of it.

    Raises:
        InputError: After the last sample, with everything that is wrong in the file, the folders and the labels.
    """
    path, labels, problems = read_labels(root, file)
    clips = open_clips(root, path, labels, problems)
    waiting: list[str] = []
    for number, label in labels:
        if (clip := clips.get(label.clip)) is None:
            continue
        found = {camera: clip.pictures.get(camera, {}).get(label.moment) for camera in clip.cameras}
        images = {camera: str(image) for camera, image in found.items() if image}
        absent = [camera for camera in clip.cameras if camera not in images]
        waiting += [f"{label.clip}/{camera}/{label.moment}" for camera in absent if camera in clip.videos]
        if never := [camera for camera in absent if camera not in clip.videos]:
            expected, where = f"a picture of frame {label.moment} of {', '.join(never)}", f"row {number}, {label.clip}"
            problems.append(Problem(str(path), where, expected, "none", "correct the frame, or add the picture"))
        elif images and not absent:
            yield _sample(label, images, Path(file).stem, regime)
    if waiting:
        found_now = f"{len(waiting)} are missing, first {waiting[0]}"
        remedy = f"drivedistill data frames {root} --file {file}"
        problems.append(Problem(str(path), "", "labelled frames of videos as pictures", found_now, remedy))
    if problems:
        raise InputError(problems)


def read_labels(root: Path, file: str) -> tuple[Path, list[tuple[int, Label]], list[Problem]]:
    """The file of labels.

    Returns:
        Its path; number (from 1) and content of every row that is right; what is wrong with the others.

    Raises:
        InputError: There is no such file, or it is neither JSON lines nor CSV.
    """
    path = _find_labels(root, file)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else [row.model_dump() for row in read_jsonl(path, _Line)]
    labels: list[tuple[int, Label]] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"row {number}"
        ambiguous = [*_one_of(row, "frame", "time"), *_one_of(row, "meta_action", "future_path")]
        problems += [Problem(str(path), where, *what, "keep one of the two") for what in ambiguous]
        try:
            label = Label.model_validate(row)
        except ValidationError as error:
            problems += validation_problems(error, str(path), where)
            continue
        if ambiguous:
            continue
        first = seen.setdefault((label.clip, label.moment), number)
        if first != number:
            found = f"{label.clip}, {label.moment} again, after row {first}"
            problems.append(Problem(str(path), where, "every moment once", found, "remove one of the rows"))
            continue
        labels.append((number, label))
    return path, labels, problems


def open_clips(root: Path, path: Path, labels: list[tuple[int, Label]], problems: list[Problem]) -> dict[str, Clip]:
    """The clips that are labelled, by name; what is wrong with their folders is added to `problems`."""
    clips: dict[str, Clip] = {}
    first = {label.clip: number for number, label in reversed(labels)}
    for name in dict.fromkeys(label.clip for _, label in labels):
        try:
            clips[name] = open_clip(root, name)
        except InputError as error:
            problems += [replace(problem, record=f"{path.name}, row {first[name]}") for problem in error.problems]
        else:
            problems += clips[name].problems
    return clips


def unlabelled(root: Path, file: str) -> list[str]:
    """Clips directly below the root of which `file` has no moment; a root may have several files of labels."""
    _, labels, _ = read_labels(root, file)
    labelled = {PurePosixPath(label.clip).parts[0] for _, label in labels}
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    names = {path.name if path.is_dir() else path.stem for path in entries if path.is_dir() or is_video(path)}
    return sorted(names - labelled)


class _Line(Row):
    """Any JSON object."""

    called = "labels of clips"
    model_config = ConfigDict(extra="allow")


def _find_labels(root: Path, file: str) -> Path:
    try:
        return find(root, [file] if file.endswith(FORMS) else [file + form for form in FORMS], "a file of labels")
    except InputError as error:
        there = [path.stem for form in FORMS for path in sorted(root.glob(f"*{form}"))] if root.is_dir() else []
        if not there:
            raise
        (problem,) = error.problems
        remedy = f"choose one that is there, e.g. `file` (--file) {there[0]}"
        raise InputError(Problem(str(root), file, problem.expected, problem.found, remedy)) from None


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """Rows without their empty cells."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey="more cells than columns", strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(Problem(str(path), "", "a CSV file in UTF-8 with a header", str(error), "mend it")) from error
    return [{key: cell for key, cell in row.items() if cell} for row in rows]


def _one_of(row: dict[str, Any], first: str, second: str) -> Iterator[tuple[str, str]]:
    given = [key for key in (first, second) if row.get(key) is not None]
    if len(given) != 1:
        yield f"either {first} or {second}", " and ".join(given) or "neither"


def _sample(label: Label, images: dict[str, str], split: str, regime: Regime) -> Sample:
    name = f"{label.clip}/{label.moment}"
    told = label.model_dump(include={"clip", "time", "speed", "command"}, exclude_none=True)
    return Sample(
        id=name,
        dataset=NAME,
        scene=label.clip,
        frame=name,
        split=split,
        regime=label.regime or regime,
        task="planning",
        question=label.question or meta_action_question(label.speed, label.command),
        answer=label.answer or label.action,
        images=images,
        meta_action=label.action,
        future_path=label.future_path,
        extra=told | ({} if label.question else {"template": META_ACTION}),
    )
