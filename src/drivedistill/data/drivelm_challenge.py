"""DriveLM's challenge: which questions are asked, with which tag, and which of them become multiple choice.

Follows `challenge/extract_data.py` and `challenge/convert_data.py` of OpenDriveLab/DriveLM, with three differences: the
distractors come from a seed and the question's place instead of an unseeded generator; an answer that is not in the
closed list leaves its question open instead of ending the program; and a question that two rules pick is asked twice
with one tag each, where the original lets the second tag overwrite the first.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

from drivedistill.records import Task

ACCURACY, JUDGE, LANGUAGE, MATCH = 0, 1, 2, 3
"""The tags: how a question is scored."""

MOVING_STATUS = "what is the moving status of object"
MOVING_STATES = (
    "Going ahead.",
    "Turn right.",
    "Turn left.",
    "Stopped.",
    "Back up.",
    "Reverse parking.",
    "Drive backward.",
)
PLANNING = ("what actions could the ego vehicle take", "lead to a collision", "safe actions")

_SPEEDS = ("driving slowly", "driving with normal speed", "driving fast", "driving very fast")
_STEERINGS = (
    "slightly steering to the left",
    "slightly steering to the right",
    "steering to the left",
    "steering to the right",
)
BEHAVIORS = (
    "The ego vehicle is going straight. The ego vehicle is not moving.",
    *(
        f"The ego vehicle is {steering}. The ego vehicle is {speed}."
        for steering in ("going straight", *_STEERINGS)
        for speed in _SPEEDS
    ),
)
"""The 21 answers of the behavior question."""

CHOOSE = " Please select the correct answer from the following options: "
"""Between a question and its options."""

TASKS = get_args(Task)
QA = dict[str, Any]

_OPTIONS = re.compile(r"\b([A-H])\.\s+(.*?)(?=\s+[A-H]\.\s|\s*$)", re.DOTALL)


def extract_challenge(train: dict[str, Any]) -> dict[str, Any]:
    """Pick the challenge's questions from a DriveLM training file (`test.json` of the official tools).

    Per frame, ignoring case: the first perception answer that names every key object (language) and the first moving
    status (accuracy); the first prediction answer that holds every object's tag (match) and the first with "yes" or
    "no" anywhere in it (accuracy; "none" and "notice" count, as in the original); the first of each of three planning
    questions (judge); every behavior question (accuracy).

    Args:
        train: The parsed training file; it is not changed.

    Returns:
        Scenes with `key_frames`, frames with `QA` and `image_paths`, questions with `tag`.
    """
    return _map_frames(train, lambda frame, _: {"QA": _extract(frame), "image_paths": frame["image_paths"]})


def to_multiple_choice(test: dict[str, Any], seed: int) -> dict[str, Any]:
    """Turn moving-status and behavior questions into four choices (`test_eval.json` of the official tools).

    Args:
        test: What `extract_challenge` returns; it is not changed.
        seed: Choices and their order are a function of the seed and the place of the question.

    Returns:
        The same structure; the answer of a multiple-choice question is its letter. A question whose answer is not in
        the closed list, or is missing, stays open.
    """

    def convert(frame: dict[str, Any], place: str) -> dict[str, Any]:
        questions: dict[str, list[QA]] = {task: list(items) for task, items in frame["QA"].items()}
        for task, answers in (("perception", MOVING_STATES), ("behavior", BEHAVIORS)):
            questions[task] = [
                _choices(qa, answers, random.Random(f"{seed} {place} {task} {index}"))
                if task == "behavior" or MOVING_STATUS in qa["Q"].lower()
                else qa
                for index, qa in enumerate(questions.get(task, []))
            ]
        return {**frame, "QA": questions}

    return _map_frames(test, convert)


def _map_frames(scenes: dict[str, Any], change: Callable[[dict[str, Any], str], dict[str, Any]]) -> dict[str, Any]:
    return {
        scene: {
            "key_frames": {
                token: change(copy.deepcopy(frame), f"{scene} {token}") for token, frame in body["key_frames"].items()
            }
        }
        for scene, body in scenes.items()
    }


def _extract(frame: dict[str, Any]) -> dict[str, list[QA]]:
    objects = frame.get("key_object_infos") or {}
    names = [str(item.get("Visual_description") or "").split(".")[0].lower() for item in objects.values()]
    tags = [tag.lower() for tag in objects]
    qa: dict[str, list[QA]] = {task: frame["QA"].get(task) or [] for task in TASKS}
    return {
        "perception": [
            *_first(qa["perception"], LANGUAGE, lambda item: all(name in _answer(item) for name in names)),
            *_first(qa["perception"], ACCURACY, lambda item: MOVING_STATUS in item["Q"].lower()),
        ],
        "prediction": [
            *_first(qa["prediction"], MATCH, lambda item: all(tag in _answer(item) for tag in tags)),
            *_first(qa["prediction"], ACCURACY, lambda item: "yes" in _answer(item) or "no" in _answer(item)),
        ],
        "planning": _planning(qa["planning"]),
        "behavior": [item | {"tag": [ACCURACY]} for item in qa["behavior"]],
    }


def _planning(items: list[QA]) -> list[QA]:
    """The first question of each of the three kinds, in the order of the file."""
    chosen: list[QA] = []
    open_kinds = list(PLANNING)
    for item in items:
        for kind in [kind for kind in open_kinds if kind in item["Q"].lower()]:
            open_kinds.remove(kind)
            chosen.append(item | {"tag": [JUDGE]})
    return chosen


def _first(items: Iterable[QA], tag: int, wanted: Callable[[QA], bool]) -> list[QA]:
    """The first wanted question with its tag, or nothing."""
    return [item | {"tag": [tag]} for item in items if wanted(item)][:1]


def _answer(item: QA) -> str:
    return str(item.get("A") or "").lower()


def _choices(item: QA, answers: tuple[str, ...], generator: random.Random) -> QA:
    if item.get("A") not in answers:
        return item
    options = [*generator.sample([answer for answer in answers if answer != item["A"]], 3), item["A"]]
    generator.shuffle(options)
    listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return item | {"Q": f"{item['Q']}{CHOOSE}{listed}", "A": "ABCD"[options.index(item["A"])]}


def options(question: str) -> dict[str, str]:
    """Letters and texts of a multiple-choice question; empty for any other.

    >>> options("Where? Please select the correct answer from the following options: A. Left. B. Right.")
    {'A': 'Left.', 'B': 'Right.'}
    """
    _, separator, tail = question.partition("following options:")
    return dict(_OPTIONS.findall(tail)) if separator else {}
