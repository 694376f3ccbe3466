"""Conversations as LLaMA-Factory and Drive-KD keep them: one question about some pictures per record.

    [{"messages": [{"role": "user", "content": "<image>What ...?"}, {"role": "assistant", "content": "..."}],
      "images": ["nuscenes/samples/CAM_FRONT/n015-...__CAM_FRONT__1533....jpg"], "question_type": "perception"}]

The records are a list, or lie under `data`, `items`, `samples`, `dataset` or `records` of an object, or one per line of a
`.jsonl` file. Source: Drive-KD's released code (`train.py` 41-105, `qa_loader.py` 105-161, `data/demo.json`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from drivedistill.data.images import image_size
from drivedistill.data.paths import find, load_any_json, load_json_lines, named_cameras, published
from drivedistill.data.prompt import POINT, SizeOf, to_pixels
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Regime, Sample, Task

ROOTS = ("data", "items", "samples", "dataset", "records")
TYPES = ("question_type", "type", "capability")
SCENES = ("scene", "scene_token")
PICTURE = "<image>"
Kind = Task | Literal["reasoning"]
ALIASES: dict[str, Kind] = {
    **dict.fromkeys(("perception", "perceptual", "perceive", "per", "p"), "perception"),
    **dict.fromkeys(("reasoning", "reason", "logical_reasoning", "infer", "r"), "reasoning"),
    **dict.fromkeys(("planning", "plan", "pl", "d", "decision"), "planning"),
    "prediction": "prediction",
    "behavior": "behavior",
}
"""Drive-KD's words for its three capabilities (train.py 49-66), and DriveBench's for the two that reasoning holds."""
PARTS: dict[str, Kind] = {"percep": "perception", "reason": "reasoning", "plan": "planning"}
"""What a longer word may contain (train.py 68-73)."""
BEHAVIOR = "predict the behavior of the ego vehicle"
"""How DriveBench's behaviour questions begin; what else is reasoning is prediction."""

_size = lru_cache(maxsize=100_000)(image_size)


@dataclass
class _Place:
    """Where the reader stands: what a problem must name."""

    root: Path
    file: Path
    regime: Regime
    record: str = ""
    problems: list[Problem] = field(default_factory=list)

    def complain(self, where: str, expected: str, value: Any, remedy: str) -> None:
        found = "nothing" if value is None else repr(value) if len(repr(value)) < 120 else f"{repr(value)[:117]}..."
        self.problems.append(Problem(str(self.file), f"{self.record}, {where}", expected, found, remedy))


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read a file of conversations.

    Args:
        root: The folder to which file and pictures are relative.
        file: The file's path, or that path without `.json` or `.jsonl`.
        regime: `regular` or `corner`; the format does not say.

    Yields:
        Samples with the record's `id`, or ids like `{file}_12`. The scene is what a record says (`scene`, `scene_token`), else
        the drive that a nuScenes name begins with (which has several scenes), else the picture's own name. Points become
        pixels where most of the file's points lie between 0 and 1.

    Raises:
        InputError: After the last sample, with every record that could not be read.
    """
    named = [file] if Path(file).suffix in (".json", ".jsonl") else [f"{file}.json", f"{file}.jsonl"]
    path = find(root, named, f"conversations `{file}`")
    place = _Place(root, path, regime)
    samples = [sample for number, record in enumerate(_records(place)) for sample in _sample(place, number, record)]
    yield from _in_pixels(place, samples)
    if place.problems:
        raise InputError(place.problems)


def _records(place: _Place) -> list[Any]:
    if place.file.suffix == ".jsonl":
        return load_json_lines(place.file, "one conversation per line: a JSON object")
    what = f"a list of conversations, or an object with one of {', '.join(ROOTS)}"
    found = load_any_json(place.file, what)
    lists = [found] if isinstance(found, list) else []
    if isinstance(found, dict):
        lists = [found[key] for key in ROOTS if isinstance(found.get(key), list)]
    if len(lists) != 1:
        shown = f"an object with {', '.join(found) or 'no key'}" if isinstance(found, dict) else type(found).__name__
        raise InputError(Problem(str(place.file), "", what, shown, "leave one list of records in the file"))
    return lists[0]


def _sample(place: _Place, number: int, record: Any) -> Iterator[Sample]:
    place.record = f"record {number}"
    before = len(place.problems)
    if not isinstance(record, dict):
        place.complain("the record", "an object", record, "restore it from the published file")
        return
    asked, answer = _words(place, record)
    images = _images(place, record.get("images"))
    question = _placed(place, asked, images)
    task = _task(place, record, question)
    if len(place.problems) > before or task is None:
        return
    scene, frame = _moment(images)
    told = next((str(record[key]) for key in SCENES if record.get(key)), scene)
    used = {"images", "id", *SCENES, *TYPES, *(("question", "answer") if "question" in record else ("messages",))}
    yield Sample(
        id=str(record.get("id", f"{place.file.stem}_{number}")),
        dataset="messages",
        scene=told,
        frame=frame,
        split=place.file.stem,
        regime=place.regime,
        task=task,
        question=question,
        answer=answer,
        images={camera: images[camera] for camera in CAMERAS if camera in images},
        extra={key: value for key, value in record.items() if key not in used and value is not None},
    )


def _words(place: _Place, record: dict[str, Any]) -> tuple[str, str | None]:
    """Question and answer."""
    if "question" in record:
        question, answer = record["question"], record.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str | None):
            place.complain("question", "texts `question` and `answer`", [question, answer], "mend the record")
            return "", None
        return question.strip(), answer if answer is None else answer.strip()
    turns = record.get("messages")
    listed = turns if isinstance(turns, list) else []
    roles = [
        str(turn.get("role")).strip().lower() if isinstance(turn, dict) and isinstance(turn.get("content"), str) else ""
        for turn in listed
    ]
    if roles not in (["user"], ["user", "assistant"]):
        expected = "one turn {role: user, content: TEXT}, and perhaps one {role: assistant, content: TEXT}"
        remedy = "make one record of every question; write what a system turn says into the question"
        place.complain("messages", expected, turns, remedy)
        return "", None
    texts = [turn["content"].strip() for turn in listed]
    return texts[0], texts[1] if len(texts) > 1 else None


def _images(place: _Place, listed: Any) -> dict[str, str]:
    """Camera -> absolute path, in the order of the record."""
    paths = [path for path in listed if isinstance(path, str) and path.strip()] if isinstance(listed, list) else []
    if not paths or len(paths) < len(listed):
        place.complain("images", "a list of paths of pictures", listed, "restore them from the published file")
        return {}
    named = [named_cameras(path) for path in paths]
    cameras = (
        list(CAMERAS[: len(paths)]) if not any(named) else [c for found in named if len(found) == 1 for c in found]
    )
    if len(set(cameras)) < len(paths):
        expected = "at most six pictures, of different cameras where their paths name cameras (CAM_FRONT)"
        place.complain("images", expected, paths, "name the pictures as nuScenes does, samples/CAM_FRONT/x.jpg")
        return {}
    images: dict[str, str] = {}
    for camera, path in zip(cameras, paths, strict=True):
        inside = published(place.root, path.removeprefix(".../"))
        if inside is None:
            remedy = "write the path relative to the data root, e.g. nuscenes/samples/CAM_FRONT/x.jpg"
            place.complain("images", "a path inside the data root", path, remedy)
        images[camera] = str(inside)
    return images


def _placed(place: _Place, asked: str, images: dict[str, str]) -> str:
    """The question without its leading placeholders; one inside a sentence becomes the name of its picture's camera."""
    count = asked.count(PICTURE)
    if count not in (0, len(images)) and images:
        found = f"{count} x {PICTURE} and {len(images)} pictures"
        place.complain("messages", f"as many {PICTURE} as pictures, or none", found, "make both agree")
    cameras = iter(images)
    leading = re.match(rf"(?:\s*{PICTURE})*\s*", asked)
    assert leading is not None
    for _ in range(leading[0].count(PICTURE)):
        next(cameras, None)
    question = re.sub(PICTURE, lambda _: next(cameras, PICTURE), asked[leading.end() :])
    if not question.strip():
        place.complain("messages", "a question in words", asked or None, "write one, or remove the record")
    return question.strip()


def _task(place: _Place, record: dict[str, Any], question: str) -> Task | None:
    given = next((record[key] for key in TYPES if record.get(key) is not None), None)
    word = re.sub(r"[-\s]", "_", str(given).strip().lower())
    found = ALIASES.get(word) or next((task for part, task in PARTS.items() if part in word), None)
    if found is None:
        place.complain("question_type", "perception, reasoning or planning", given, "say what the question is about")
        return None
    if found == "reasoning":
        return "behavior" if question.lower().startswith(BEHAVIOR) else "prediction"
    return found


def _moment(images: dict[str, str]) -> tuple[str, str]:
    """Scene and frame: `n015-2018-...` and `n015-2018-..._1533...` of a nuScenes name, else the first picture's own name."""
    name = Path(images.get(CAMERAS[0], next(iter(images.values())))).stem
    drive, camera, time = [*name.split("__"), "", ""][:3]
    return (drive, f"{drive}_{time}") if camera in CAMERAS and time else (name, name)


def _in_pixels(place: _Place, samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples with points in pixels, if most of the file's points are shares of their picture."""
    shares: Counter[bool] = Counter()
    for sample in samples:
        for _, _, x, y in POINT.findall(f"{sample.question} {sample.answer}"):
            shares[0 <= float(x) <= 1 and 0 <= float(y) <= 1] += 1
    if shares[True] <= shares[False]:
        yield from samples
        return
    for sample in samples:
        place.record = f"sample {sample.id}"
        try:
            texts = [text and to_pixels(text, _sizes(place, sample)) for text in (sample.question, sample.answer)]
        except InputError as error:
            place.problems += [problem for problem in error.problems if problem not in place.problems]
            continue
        yield sample.model_copy(update={"question": texts[0], "answer": texts[1]})


def _sizes(place: _Place, sample: Sample) -> SizeOf:
    def size_of(camera: str) -> tuple[int, int]:
        if camera in sample.images:
            return _size(sample.images[camera])
        expected, found = f"points in its pictures: {', '.join(sample.images)}", f"a point in {camera}"
        raise InputError(
            Problem(str(place.file), place.record, expected, found, "correct the point, or add the picture")
        )

    return size_of
