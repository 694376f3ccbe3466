"""How much of everything fits into so many minutes."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_MINUTES = 2.0

FIXED_S = 130
"""Processor seconds, or seconds of one process, that do not shrink: starting processes, compiling kernels, the report."""


@dataclass(frozen=True)
class Budget:
    """How much is made, learnt and asked."""

    keyframes: int
    """Of six pictures, over all splits."""
    steps: int
    """Optimizer steps of every student."""
    questions: int
    """Of each data set and regime, answered and scored by every row."""
    probed: int
    """Of each data set and regime, asked once more with black pictures."""
    benched: int
    """Asked one at a time under the clock."""

    def seconds(self, jobs: int) -> dict[str, int]:
        """About how long every stage takes with so many processes at a time."""
        return {
            "data": round(15 + self.keyframes / 22 / jobs),
            "teacher": round(25 + 6 * self.keyframes / 300),
            "students": round((6 * 45 + 5 * self.steps * 0.6 + 6 * self.questions * 0.15) / jobs),
            "controls": round(60 / jobs),
            "bench": 60,
            "report": 15,
        }


def budget(minutes: float, jobs: int) -> Budget:
    """What fits into `minutes` when `jobs` processes of one thread run at a time.

    Args:
        minutes: Of a machine that does nothing else.
        jobs: Processes at a time, not more than there are cores.
    """
    share = minutes / 10
    keyframes = round(1500 * share)
    first = Budget(max(120, keyframes), 1, max(20, round(150 * share)), max(20, round(100 * share)), 20)
    left = 60 * minutes - sum(first.seconds(jobs).values())
    return Budget(first.keyframes, max(20, round(left * jobs / 5 / 0.6)), first.questions, first.probed, first.benched)
