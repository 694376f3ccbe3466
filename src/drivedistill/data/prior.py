"""How far one gets without looking: the commonest answer of every question template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from drivedistill.records import Sample

TAG = re.compile(r"<\s*c\d+\s*,[^<>]*>")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
OPTIONS = re.compile(r"(following options:).*", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """A question with its objects and numbers masked, and the answer that fits most often."""

    question: str
    count: int
    answer: str
    share: float


def template(question: str) -> str:
    """The question with objects, numbers and multiple-choice options masked; directions and classes stay.

    >>> template("What is the moving status of object <c1,CAM_BACK,1088.3,497.5>?")
    'What is the moving status of object <OBJ>?'
    """
    return NUMBER.sub("<NUM>", OPTIONS.sub(r"\1 <OPTIONS>", TAG.sub("<OBJ>", question)))


def templates(samples: Iterable[Sample]) -> list[Template]:
    """The templates of the answered samples, the most frequent first; ties between answers go to the first seen."""
    groups: dict[str, Counter[str]] = {}
    for sample in samples:
        if sample.answer is not None:
            groups.setdefault(template(sample.question), Counter())[sample.answer.strip()] += 1
    rows = []
    for question, answers in groups.items():
        answer, most = answers.most_common(1)[0]
        rows.append(Template(question, answers.total(), answer, most / answers.total()))
    return sorted(rows, key=lambda row: (-row.count, row.question))
