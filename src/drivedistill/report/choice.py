"""Which questions the gallery shows: drawn by a rule that is stated on the page, not picked.

Every question that all shown rows answered belongs to a group: its regime, its task, and who is right. The groups take
turns (regular and corner, tasks, and outcomes in the order of their names), and each gives its next question, in an order
that a digest of seed and id decides. Once there are as many frames as are wanted, questions come from these frames only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from drivedistill.evaluate.correct import is_right
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.records import Prediction
from drivedistill.report.roles import Roles

ALL_RIGHT, ALL_WRONG, TEACHER_ONLY = "all right", "all wrong", "teacher right, a student wrong"
STUDENT_ONLY, DIFFER, FREE = "a student right, teacher wrong", "students differ", "free text"
OUTCOMES = (ALL_RIGHT, ALL_WRONG, TEACHER_ONLY, STUDENT_ONLY, DIFFER, FREE)


@dataclass(frozen=True)
class Example:
    """A question and what everybody answered."""

    question: Prediction
    """One of the answers, for what all have in common."""
    answers: dict[str, Prediction]
    """By the name of the row."""
    right: dict[str, bool | None]
    """Likewise; None where the answer is free text."""
    outcomes: tuple[str, ...]
    """Those of `OUTCOMES` that hold; one does at least."""

    @property
    def frame(self) -> tuple[str, str]:
        """Scene and frame."""
        return self.question.scene, self.question.frame


def examples(answers: Mapping[str, Sequence[Prediction]], roles: Roles, free: Collection[QuestionSet]) -> list[Example]:
    """The questions that everybody answered, with who is right.

    Args:
        answers: Name of a row -> its answers.
        roles: Says who is the teacher.
        free: Sets that are answered in free text.
    """
    by_id = {name: {(set_of(item), item.id): item for item in rows} for name, rows in answers.items()}
    common = sorted(set.intersection(*(set(rows) for rows in by_id.values()))) if by_id else []
    found = []
    for key in common:
        given = {name: rows[key] for name, rows in by_id.items()}
        question = next(iter(given.values()))
        if question.reference is None:
            continue
        right = {name: None if key[0] in free else is_right(item) for name, item in given.items()}
        teacher = roles.teacher.name if roles.teacher else None
        found.append(Example(question, given, right, _outcomes(right, teacher)))
    return found


def _outcomes(right: Mapping[str, bool | None], teacher: str | None) -> tuple[str, ...]:
    values = list(right.values())
    if None in values:
        return (FREE,)
    students = [value for name, value in right.items() if name != teacher]
    tests = {
        ALL_RIGHT: all(values),
        ALL_WRONG: not any(values),
        TEACHER_ONLY: bool(right.get(teacher or "")) and not all(students),
        STUDENT_ONLY: teacher in right and not right[teacher or ""] and any(students),
        DIFFER: len(set(students)) > 1,
    }
    return tuple(name for name, holds in tests.items() if holds)


def choose(found: Sequence[Example], *, frames: int, most: int, seed: int) -> list[Example]:
    """At most `most` questions of at most `frames` frames; see the top of the file."""
    waiting: dict[tuple[int, str, int], list[Example]] = {}
    for example in sorted(found, key=lambda one: _digest(seed, one.question.id)):
        regime = int(example.question.regime != "regular")
        for outcome in example.outcomes:
            waiting.setdefault((OUTCOMES.index(outcome), example.question.task, regime), []).append(example)
    chosen: dict[str, Example] = {}
    seen: set[tuple[str, str]] = set()
    while len(chosen) < most and any(waiting.values()):
        for key in sorted(waiting):
            queue = waiting[key]
            fit = [one for one in queue if one.question.id not in chosen and (len(seen) < frames or one.frame in seen)]
            waiting[key] = fit[1:]
            if fit and len(chosen) < most:
                chosen[fit[0].question.id] = fit[0]
                seen.add(fit[0].frame)
    return list(chosen.values())


def _digest(seed: int, id: str) -> str:
    return hashlib.sha256(f"gallery {seed} {id}".encode()).hexdigest()
