"""Model A beside model B: every metric of the same questions, and its difference (`difference.py`)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivedistill.evaluate.captions.measures import Tokenizer
from drivedistill.evaluate.difference import Difference, differences, standard_deviation
from drivedistill.evaluate.families import measures_of
from drivedistill.evaluate.measure import Measure
from drivedistill.evaluate.measured_values import Partly
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.evaluate.same_questions import Answers, Matched, Side, match


@dataclass(frozen=True)
class Spread:
    """A metric of the runs of one side."""

    mean: float
    sd: float | None
    """Over runs; None for one."""


@dataclass(frozen=True)
class Line:
    """One metric of a set of questions."""

    name: str
    a: Spread
    b: Spread
    difference: Difference
    implementation: str


@dataclass(frozen=True)
class Comparison:
    """All metrics of a set of questions."""

    questions: QuestionSet
    a: Side
    b: Side
    n: int
    paired: bool
    """Whether run i of A and run i of B belong together."""
    left_out: tuple[int, int]
    """Questions that a run of A, and that a run of B, answered and that are not compared, since another run did not."""
    unscored: int
    """Questions without a reference, not compared."""
    partly: tuple[Partly, ...]
    """Latencies and confidences that some of these answers have and others have not."""
    without: tuple[str, ...]
    """Files of the runs that did not answer this set, and of those paired with them."""
    lines: tuple[Line, ...]
    not_compared: tuple[str, ...]
    """Metrics that do not exist for some run."""


def compare(
    a: Sequence[Answers],
    b: Sequence[Answers],
    *,
    common: bool = False,
    paired: bool = False,
    meteor: bool = True,
    tokenizer: Tokenizer = "ptb",
    seed: int = 0,
) -> list[Comparison]:
    """A - B for every metric, on every set of questions that both sides answered; a set without references has no lines.

    Args:
        a: The answers of each run of A.
        b: The answers of each run of B.
        common: Compare the questions that all answered, where some are missing, and the runs that have a set.
        paired: The runs belong together in this order. Runs of the same models always do.
        meteor: False saves some seconds, and leaves out `meteor` and `avg`.
        tokenizer: See `captions.measures`.
        seed: Of the draws.

    Raises:
        InputError: The two sides did not answer the same questions, or cannot be paired; every finding is listed.
        RunError: Java failed.
    """
    sets = match(a, b, common=common, paired=paired)
    answers = {
        (number, side, run): items
        for number, found in enumerate(sets)
        for side, runs in (("a", found.a), ("b", found.b))
        for run, items in enumerate(runs.runs)
        if items
    }
    measures = measures_of(answers, meteor=meteor, tokenizer=tokenizer)
    return [
        _comparison(
            found,
            [measures.get((number, "a", run), {}) for run in range(len(found.a.runs))],
            [measures.get((number, "b", run), {}) for run in range(len(found.b.runs))],
            seed,
        )
        for number, found in enumerate(sets)
    ]


def _comparison(
    found: Matched, a: Sequence[Mapping[str, Measure]], b: Sequence[Mapping[str, Measure]], seed: int
) -> Comparison:
    scenes = [item.scene for item in found.a.runs[0]]
    deltas = differences(a, b, scenes, paired=found.paired, seed=seed)
    lines = []
    for name, delta in deltas.items():
        of_a, of_b = [run[name] for run in a], [run[name] for run in b]
        lines.append(Line(name, _spread(of_a), _spread(of_b), delta, of_a[0].implementation))
    return Comparison(
        questions=found.questions,
        a=found.a.side,
        b=found.b.side,
        n=len(scenes),
        paired=found.paired,
        left_out=found.left_out,
        unscored=found.unscored,
        partly=found.partly,
        without=found.without,
        lines=tuple(lines),
        not_compared=tuple(name for name in METRICS if name not in deltas and any(name in run for run in (*a, *b))),
    )


def _spread(measures: Sequence[Measure]) -> Spread:
    points = [measure.point for measure in measures]
    return Spread(statistics.fmean(points), standard_deviation(points))
