"""Whether an answer is right, yes or no: one rule for whatever needs a yes or no (real time, calibration).

meta-action   where the sample has a reference action: the answer names the same speed and path
exact match   elsewhere: equality with the reference, case and white space aside
"""

from __future__ import annotations

from typing import Literal

from drivedistill.evaluate.drivelm import reference_of
from drivedistill.records import Prediction

Rule = Literal["meta-action", "exact match"]


def rule_of(item: Prediction) -> Rule:
    """By which rule an answer is right."""
    return "exact match" if item.meta_action is None else "meta-action"


def is_right(item: Prediction) -> bool:
    """Whether an answer is right.

    Raises:
        ValueError: It has no reference to compare it with.
    """
    truth = reference_of(item) if item.meta_action is None else item.meta_action
    return words(item.prediction) == words(truth)


def words(text: str) -> list[str]:
    """Case-folded words: what is left of a text with case and white space aside."""
    return text.casefold().split()
