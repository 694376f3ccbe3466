"""Whether an answer is right, yes or no: one rule for whatever needs a yes or no (real time, calibration).

meta-action             the sample has a reference action and asks for Senna's form: speed and path, strictly read
meta-action in words    it has one and asks otherwise: speed and path of what plain English says
exact match             elsewhere: equality with the reference, case and white space aside
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from drivedistill.data.meta_action import free_text, strict
from drivedistill.records import Prediction

Rule = Literal["meta-action", "meta-action in words", "exact match"]

_ASKS_FOR_FORM = "SPEED plan"
"""Words by which Senna's own script knows its planning questions."""


def rule_of(item: Prediction) -> Rule:
    """By which rule an answer is right."""
    if item.meta_action is None:
        return "exact match"
    return "meta-action" if _ASKS_FOR_FORM in item.question else "meta-action in words"


def is_right(item: Prediction) -> bool:
    """Whether an answer is right.

    Raises:
        ValueError: It has no reference to compare it with.
    """
    if item.meta_action is None:
        return words(item.prediction) == words(item.truth)
    read = strict if rule_of(item) == "meta-action" else free_text
    action = read(item.prediction.strip())
    return action is not None and action == strict(item.meta_action)


def by_rules(items: Iterable[Prediction]) -> str:
    """By which rules answers are right, and how many by each: part of the label of every number made of yes and no."""
    rules = Counter(rule_of(item) for item in items)
    return f"right by {' and '.join(f'{rule} ({count:,})' for rule, count in sorted(rules.items()))}"


def words(text: str) -> list[str]:
    """Case-folded words: what is left of a text with case and white space aside."""
    return text.casefold().split()
