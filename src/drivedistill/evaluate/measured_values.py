"""Latency and confidence: measured with an answer or not, and compared only where every run has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivedistill.records import Prediction

MEASURED = ("latency_ms", "confidence")
"""What is measured with an answer, and may not have been."""


@dataclass(frozen=True)
class Partly:
    """A measured value that not every answer has: it is compared on the questions of which every run has it."""

    field: str
    a: int
    """Questions of which some run of A has it."""
    b: int
    both: int
    """Questions of which every run of A and of B has it; elsewhere it is taken out of the answers."""


def in_every_run(
    sides: Sequence[Sequence[Sequence[Prediction]]],
) -> tuple[list[tuple[tuple[Prediction, ...], ...]], tuple[Partly, ...]]:
    """The answers, with no measured value that another run has not at the same question; and what was not in all.

    Args:
        sides: Of A and of B the runs, each with its answers to the same questions in the same order.
    """
    partly, blank = [], []
    for field in MEASURED:
        has = [[[getattr(row, field) is not None for row in run] for run in runs] for runs in sides]
        every = [all(column) for column in zip(*(run for runs in has for run in runs), strict=True)]
        a, b = (sum(any(column) for column in zip(*runs, strict=True)) for runs in has)
        if max(a, b) > sum(every):
            partly.append(Partly(field, a, b, sum(every)))
        blank.append([not known for known in every])
    updates = [
        {field: None for field, without in zip(MEASURED, column, strict=True) if without}
        for column in zip(*blank, strict=True)
    ]
    return [
        tuple(tuple(row.model_copy(update=update) for row, update in zip(run, updates, strict=True)) for run in runs)
        for runs in sides
    ], tuple(partly)
