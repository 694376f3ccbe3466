"""Which sets of questions are answered in free text, and so have no right and wrong answers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.records import Prediction

FREE = 0.5
"""A set with a larger share of references that differ from each other is answered in free text, ..."""
ENOUGH = 20
"""... if it has so many questions: a few answers out of a closed list can all differ, ..."""
LONG = 12
"""... or references of more words than that, half of them at least."""


def free_text_sets(answers: Iterable[Prediction]) -> frozenset[QuestionSet]:
    """The sets that are answered in free text.

    Args:
        answers: Of all rows that are compared; a question counts once, however many answered it.
    """
    references: dict[QuestionSet, dict[str, str]] = {}
    for item in answers:
        if item.reference is not None:
            references.setdefault(set_of(item), {})[item.id] = item.reference
    return frozenset(place for place, found in references.items() if _free(list(found.values())))


def _free(references: list[str]) -> bool:
    told = len(references) >= ENOUGH or statistics.median(len(text.split()) for text in references) > LONG
    return told and len(set(references)) > max(1, FREE * len(references))
