"""Right answers by Drive-KD's capability, and the plain mean of the three: the columns of its tables.

A capability counts as much as any other, however many questions ask for it; its own figure is a mean over questions.
Deviation: the paper's figures are a judge's ratings (DeepSeek-V3.2) of free text; these are equality with the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from drivedistill.evaluate.measure import Floats, Measure, combined, mean_of
from drivedistill.records import CAPABILITY, Capability, Prediction


def measures(items: Sequence[Prediction]) -> dict[str, Measure]:
    """Exact match of each capability that is asked for, and of all three the mean where all are.

    Args:
        items: Answers with references, of one place.
    """
    found = {}
    for capability in get_args(Capability):
        right = [
            float(item.prediction == item.reference) if CAPABILITY[item.task] == capability else None for item in items
        ]
        if any(value is not None for value in right):
            found[capability] = mean_of(right, "equality")
    if len(found) == len(get_args(Capability)):
        found["capabilities"] = combined([*found.values()], _mean, "mean of perception, reasoning and planning")
    return found


def _mean(perception: Floats, reasoning: Floats, planning: Floats) -> Floats:
    return (perception + reasoning + planning) / 3
