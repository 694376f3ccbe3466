"""How much of everything fits into so many minutes.

The seconds below are processor seconds of one core of an AMD EPYC server, measured with the demo teacher and students of half
its T5 blocks in batches of 32 (`seconds` and `processor_seconds` of quickstart.json, and single verbs under `time`). Every
process works on one thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FEWEST_STEPS = 40
"""Below them nothing is learnt that could be compared; a call of less than five minutes takes longer than asked."""
SPARE = 0.1
"""Share of the time that is kept for what was not foreseen: the same machine is not equally fast in every hour."""

KEY_FRAME_S, COMPILE_S = 0.057, 15
"""To draw six pictures and ask about them; to compile the kernels, the first time."""
FEATURES_S, START_S = 0.012, 10
"""To look at a key frame with the frozen tower; to start a process that trains or measures."""
ROW_S = 26
"""Of a row: starting to train, to answer and to score, and METEOR."""
ANSWER_S, SETS = 0.027, 3
"""An answer in a batch of 64; sets of questions: regular, corner, CODA-LM."""
STEP_S = 0.37
"""Mean over the six students."""
BENCH_START_S, BENCHED_S = 30, 0.4
"""Four models and the memory of each, in a process of its own; one question, of all of them, in both ways."""
STUDENTS, ROWS = 6, 7


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
    """Of each data set and regime, asked twice: with the pictures and with black ones."""
    benched: int
    """Asked one at a time under the clock."""

    def seconds(self, jobs: int) -> dict[str, int]:
        """About how long every stage takes when `jobs` processes run at a time on as many idle cores."""
        answers = ROWS * SETS * self.questions * ANSWER_S
        probe = START_S + 2 * SETS * self.probed * 0.8 * ANSWER_S  # answers to black pictures are short
        half_tower = START_S + self.keyframes * FEATURES_S / 2
        found = {
            "data": COMPILE_S + self.keyframes * KEY_FRAME_S / jobs,
            "teacher": 2 * START_S + self.keyframes * FEATURES_S,
            "students": START_S + (ROWS * ROW_S + half_tower + answers + STUDENTS * self.steps * STEP_S) / jobs,
            "controls": START_S + 2 * probe / min(2, jobs),
            "bench": BENCH_START_S + self.benched * BENCHED_S,
            "report": 5.0,
        }
        return {stage: round(seconds) for stage, seconds in found.items()}


def budget(minutes: float, jobs: int) -> Budget:
    """What fits into `minutes` when `jobs` processes of one thread run at a time.

    The data and the questions depend on the minutes alone; what is left of the time is for learning. Beyond ten minutes the
    questions grow with the root of the time, as learning is worth more than narrower intervals.

    Args:
        minutes: Of a machine that does nothing else.
        jobs: Processes at a time, not more than there are cores.
    """
    questions = max(20, round(min(20 * minutes - 50, 150 * math.sqrt(minutes / 10))))
    rest = Budget(
        keyframes=max(120, round(150 * minutes)),
        steps=0,
        questions=questions,
        probed=max(20, 2 * questions // 3),
        benched=max(10, round(3 * minutes)),
    )
    left = 60 * minutes * (1 - SPARE) - sum(rest.seconds(jobs).values())
    steps = max(FEWEST_STEPS, int(left * jobs / (STUDENTS * STEP_S)))
    return replace(rest, steps=steps)
