"""Senna's LLaVA file (arXiv 2410.22313): one record per question about a key frame, six pictures.

    [{token, image, images, prev, next, scene_token, fut_valid_flag, ego_fut_trajs, conversations: [{from, value}]}]

The files are looked for in `ROOT/senna/` and `ROOT/`. A picture belongs to the camera that its path names: the published
lists have another order than the prompt before them. The prompt's `<FRONT VIEW>:\\n<image>\\n` is taken off, because our
models are told the cameras by other means.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drivedistill.data.paths import find, load_json_list, named_cameras, published
from drivedistill.data.senna_rules import FUTURE_POINTS, VIEWS, meta_action
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Regime, Sample, Task


class Kind(NamedTuple):
    """One of Senna's kinds of question."""

    name: str
    task: Task
    words: str
    """No other kind has them in its question."""


META_ACTION, ROAD_USERS = "senna_meta_action", "senna_road_users"
KINDS = (
    Kind(META_ACTION, "planning", "SPEED plan"),
    Kind(ROAD_USERS, "perception", "vulnerable road users"),
    Kind("senna_intentions", "prediction", "future driving behaviors"),
    Kind("senna_traffic_light", "perception", "if there is a traffic light"),
    Kind("senna_scene", "perception", "description of the driving scene"),
    Kind("senna_explanation", "behavior", "reason for this decision"),
)
"""`extra.template` of a sample -> its task: what is there is perception, what others will do prediction, what to do
planning, and why it is done behavior, as DriveLM calls what the ego vehicle does."""

_VIEW = re.compile(r"<([A-Z ]+ VIEW)>:\s*<image>\s*")
_ANSWER = re.compile(r"[A-Z]+, [A-Z_]+")
_OFFSETS = re.compile(r"[-+\d.eE,\s\[\]()]*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")

Path2D = tuple[tuple[float, float], ...]


@dataclass
class _Place:
    """Where the reader stands: what a problem must name."""

    root: Path
    file: Path
    regime: Regime
    record: str = ""
    problems: list[Problem] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def complain(self, where: str, expected: str, value: Any, remedy: str) -> None:
        found = "nothing" if value is None else repr(value) if len(repr(value)) < 120 else f"{repr(value)[:117]}..."
        self.problems.append(Problem(str(self.file), f"{self.record}, {where}", expected, found, remedy))

    def name(self, record: dict[str, Any], key: str) -> str:
        """A token that must be there; without it a placeholder and a problem."""
        value = record.get(key)
        if isinstance(value, str) and value:
            return value
        self.complain(key, "a token", value, "restore it from the published file")
        return ""


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read a file of Senna's question-answer pairs.

    Args:
        root: The folder that holds `senna/` (or the JSON itself) and the pictures.
        file: The name of a file in `senna/` without `.json` (`train`), or a path relative to the root.
        regime: `regular` or `corner`; the format does not say.

    Yields:
        Samples with ids like `{token}_meta_action`, `{token}_intentions_2` (the second of its kind). `future_path` are
        the positions (the file has offsets) where `fut_valid_flag` holds. `meta_action` is the answer of a planning
        question. All pictures of the record are shown, also where the original shows one. Answers lose the white space
        around them; one that is not there is None.

    Raises:
        InputError: After the last sample, with every record that could not be read. A planning answer that is not what
            `senna_rules.meta_action` makes of the record's own valid future path is such a record.
    """
    path = find(
        root, [*([] if Path(file).suffix else [f"senna/{file}.json", f"{file}.json"]), file], f"Senna's `{file}`"
    )
    place = _Place(root, path, regime)
    for number, record in enumerate(load_json_list(path, "a Senna file: a list of records")):
        place.record = f"record {number}"
        if isinstance(record, dict):
            yield from _record(place, record)
        else:
            place.complain("the record", "an object", record, "restore it from the published file")
    if place.problems:
        raise InputError(place.problems)


def _record(place: _Place, record: dict[str, Any]) -> Iterator[Sample]:
    used = {"token", "image", "images", "scene_token", "ego_fut_trajs", "conversations"}
    extra = {key: value for key, value in record.items() if key not in used and value is not None}
    before = len(place.problems)
    frame, scene = place.name(record, "token"), place.name(record, "scene_token")
    future, turns = _future(place, record), _turns(place, record.get("conversations"))
    images = _images(place, record, turns[0][0] if turns else "")
    if len(place.problems) > before:
        return
    for prompt, answer in turns:
        question = re.sub(r"\s*<image>\s*", " ", _VIEW.sub("", prompt)).strip()
        kind = next((kind for kind in KINDS if kind.words in question), None)
        if kind is None:
            place.complain("conversations", "one of Senna's six questions", question, "use the format jsonl for others")
            continue
        place.asked[id := f"{frame}_{kind.name.removeprefix('senna_')}"] += 1
        action = _action(place, answer, future) if kind.name == META_ACTION else None
        yield Sample(
            id=id if place.asked[id] == 1 else f"{id}_{place.asked[id]}",
            dataset="senna",
            scene=scene,
            frame=frame,
            split=place.file.stem,
            regime=place.regime,
            task=kind.task,
            question=question,
            answer=answer,
            images=images,
            meta_action=action,
            future_path=future,
            extra=extra | {"template": kind.name},
        )


def _turns(place: _Place, talk: Any) -> list[tuple[str, str | None]]:
    """Question and answer of every turn; the last answer may be missing."""
    turns = talk if isinstance(talk, list) else []
    shape = [
        turn.get("from") if isinstance(turn, dict) and isinstance(turn.get("value"), str) else None for turn in turns
    ]
    if not turns or shape != [("human", "gpt")[at % 2] for at in range(len(turns))]:
        expected = "turns {from: human, value: TEXT}, {from: gpt, value: TEXT}, by turns"
        place.complain("conversations", expected, talk, "restore it from the published file")
        return []
    texts = [turn["value"].strip() for turn in turns]
    return [(texts[at], texts[at + 1] if at + 1 < len(texts) else None) for at in range(0, len(texts), 2)]


def _images(place: _Place, record: dict[str, Any], prompt: str) -> dict[str, str]:
    """Camera -> absolute path, in the order of `CAMERAS`."""
    key = "images" if "images" in record else "image"
    given = record.get(key)
    listed: list[Any] = given if isinstance(given, list) else [given]
    paths = [path for path in listed if isinstance(path, str) and path.strip()]
    if not paths or len(paths) < len(listed):
        place.complain(key, "paths of pictures", given, "restore them from the published file")
        return {}
    cameras = _cameras(paths, _VIEW.findall(prompt))
    if len(set(cameras)) < len(paths) or None in cameras:
        expected = "pictures of different cameras, told by their paths (CAM_FRONT) or, if no path tells, by the prompt"
        place.complain(key, expected, paths, "name the pictures as nuScenes does, samples/CAM_FRONT/x.jpg")
        return {}
    images: dict[str | None, str] = {}
    for camera, path in zip(cameras, paths, strict=True):
        inside = published(place.root, path)
        if inside is None:
            remedy = "write the path relative to the data root, e.g. nuscenes/samples/CAM_FRONT/x.jpg"
            place.complain(key, "a path inside the data root", path, remedy)
        images[camera] = str(inside)
    return {camera: images[camera] for camera in CAMERAS if camera in images}


def _cameras(paths: list[str], views: list[str]) -> list[str | None]:
    """The camera of every picture; None where a path names two, or some name one and others none."""
    named = [named_cameras(path) for path in paths]
    if not any(named) and len(views) == len(paths):
        by_words = {words: camera for camera, words in VIEWS.items()}
        return [by_words.get(view) for view in views]
    return [found.pop() if len(found) == 1 else None for found in named]


def _future(place: _Place, record: dict[str, Any]) -> Path2D | None:
    """Positions of the ego vehicle, from offsets in a list or in the text that Python or numpy prints for one."""
    offsets, valid = record.get("ego_fut_trajs"), record.get("fut_valid_flag", True)
    if not isinstance(valid, bool):
        place.complain("fut_valid_flag", "true or false", valid, "restore it from the published file")
    if offsets is None or not valid:
        return None
    text = str(offsets)
    numbers = [float(number) for number in _NUMBER.findall(text)] if _OFFSETS.fullmatch(text) else []
    if len(numbers) != 2 * FUTURE_POINTS or not np.isfinite(np.sum(np.abs(numbers))):
        expected = f"{FUTURE_POINTS} offsets [x right, y forward] in metres where fut_valid_flag is true"
        place.complain("ego_fut_trajs", expected, offsets, "restore it, or set fut_valid_flag to false")
        return None
    return tuple((float(x), float(y)) for x, y in np.cumsum(np.reshape(numbers, (-1, 2)), axis=0))


def _action(place: _Place, answer: str | None, future: Path2D | None) -> str | None:
    """The reference action, checked against the path that it was made from."""
    if answer is None:
        return None
    ours = str(meta_action(future)) if future else None
    if not _ANSWER.fullmatch(answer) or ours not in (None, answer):
        expected = f"{ours}, the label of ego_fut_trajs" if ours else "an answer such as KEEP, STRAIGHT"
        place.complain("conversations", expected, answer, "correct the answer, or set fut_valid_flag to false")
        return None
    return answer
