"""What balancing did, per template, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from drivedistill.data.drivelm_challenge import options
from drivedistill.world.questions.question import Question

SHOWN = 3
"""Answers whose shares are told."""


def balance_table(candidates: Sequence[Sequence[Question]], kept: Sequence[Sequence[Question]]) -> str:
    """Per template: candidates, kept questions, and the largest shares of answers before and after, in 100 columns.

    Args:
        candidates: What `balance` was given.
        kept: What it returned; a letter counts as the text of its option.
    """
    before, after = _answers(candidates), _answers(kept)
    head = (
        f"{'template':<16}{'candidates':>10}{'kept':>9}{'top before':>12}{'after':>7}  commonest answers that are kept"
    )
    return "\n".join([head, *(_row(name, before[name], after.get(name, Counter())) for name in sorted(before))])


def _answers(frames: Iterable[Sequence[Question]]) -> dict[str, Counter[str]]:
    """Template -> how often each answer is given, whether it is asked with options or not."""
    found: dict[str, Counter[str]] = {}
    for question in (question for questions in frames for question in questions):
        answer = options(question.text).get(question.answer, question.answer).removesuffix(".").lower()
        found.setdefault(question.template, Counter())[answer] += 1
    return found


def _row(name: str, before: Counter[str], after: Counter[str]) -> str:
    total = max(1, after.total())
    shares = ", ".join(f"{_short(answer)} {count / total:.0%}" for answer, count in after.most_common(SHOWN))
    tops = (max(answers.values(), default=0) / max(1, answers.total()) for answers in (before, after))
    numbers = "".join(f"{top:>{width}.0%}" for top, width in zip(tops, (12, 7), strict=True))
    return f"{name:<16}{before.total():>10,}{after.total():>9,}{numbers}  {shares}"


def _short(answer: str, width: int = 9) -> str:
    return answer if len(answer) <= width else f"{answer[: width - 1].rstrip()}…"
