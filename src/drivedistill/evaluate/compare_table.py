"""A comparison for people (a plain-text table per set of questions) and for scripts (JSON)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from drivedistill.evaluate.compare import Comparison, Line, Spread
from drivedistill.evaluate.difference import Difference
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.evaluate.same_questions import Side
from drivedistill.tables import plain

IN_TABLE = tuple(name for name, metric in METRICS.items() if metric.in_table)
"""What is shown where nothing is named."""

_SHOWN = 3
"""Models that the head of a table names."""


def format_comparisons(
    found: Sequence[Comparison], alone: Mapping[QuestionSet, str], names: Sequence[str] = IN_TABLE
) -> str:
    """A table per set of questions: A and B (mean ± standard deviation over seeds), A - B with its interval, the verdict.

    Args:
        found: What was compared.
        alone: Sets that only one side answered.
        names: Metrics to show; BLEU, METEOR, ROUGE-L, exact match and accuracy appear x100, as in the papers.
    """
    parts = ["\n".join(_block(comparison, names)) for comparison in found]
    return "\n\n".join([*parts, "\n".join(_notes(found, alone, names))])


def as_json(
    found: Sequence[Comparison], alone: Mapping[QuestionSet, str], names: Sequence[str] = tuple(METRICS)
) -> dict[str, Any]:
    """Everything that was compared, in the units of `METRICS` (fractions are fractions)."""
    sets = []
    for comparison in found:
        tree = asdict(comparison) | {"questions": comparison.questions._asdict()}
        tree["lines"] = [
            asdict(line) | {"unit": METRICS[line.name].unit} for line in comparison.lines if line.name in names
        ]
        sets.append(tree)
    return {"sets": sets, "only": [{"side": side, **questions._asdict()} for questions, side in alone.items()]}


def _block(comparison: Comparison, names: Sequence[str]) -> Iterator[str]:
    pairs = f", runs {'' if comparison.paired else 'not '}in pairs" if _several(comparison) else ""
    yield f"{' '.join(comparison.questions)}: {comparison.n:,} questions{pairs}"
    yield f"  A  {_who(comparison.a)}"
    yield f"  B  {_who(comparison.b)}"
    if comparison.without:
        yield f"  runs left out, that or whose partner did not answer this set: {', '.join(comparison.without)}"
    if any(comparison.left_out):
        a, b = comparison.left_out
        yield f"  left out, since some run did not answer them: {a:,} questions of A, {b:,} of B"
    if comparison.unscored:
        yield f"  without a reference, not compared: {comparison.unscored:,} questions"
    for part in comparison.partly:
        where = f"compared on the {part.both:,} that" if part.both else "not compared, none"
        verb = "have" if part.both else "has"
        yield f"  {part.field}: {part.a:,} questions of A have it, {part.b:,} of B; {where} {verb} it in every run"
    lines = [_cells(line) for line in comparison.lines if line.name in names]
    if lines:
        table = [["", "A", "B", "A - B", "95 % interval", "questions", "scenes", "A is"], *lines]
        yield ""
        for line, shown in zip(table, plain([line[:-1] for line in table]), strict=True):
            yield f"  {shown}  {line[-1]}"
    if missing := [name for name in comparison.not_compared if name in names]:
        yield f"  not compared, since they do not exist for every run: {', '.join(missing)}"


def _several(comparison: Comparison) -> bool:
    return max(len(comparison.a.models), len(comparison.b.models)) > 1


def _who(side: Side) -> str:
    models = ", ".join(side.models[:_SHOWN]) + (", ..." if len(side.models) > _SHOWN else "")
    runs = f"{len(side.models)} runs: " if len(side.models) > 1 else ""
    return f"{runs}{models} ({side.decode}, {side.condition})"


def _cells(line: Line) -> list[str]:
    metric, found = METRICS[line.name], line.difference
    mean = f"{found.mean * metric.factor:+,.{metric.decimals}f}"
    interval = "-" if found.low is None or found.high is None else _interval(found, metric.factor, metric.decimals)
    a, b = (_spread(side, metric.factor, metric.decimals) for side in (line.a, line.b))
    return [
        metric.label, a, b, mean, interval, f"{found.n:,}", f"{found.num_scenes:,}",
        found.verdict or "no verdict",
    ]  # fmt: skip


def _spread(side: Spread, factor: float, decimals: int) -> str:
    text = f"{side.mean * factor:,.{decimals}f}"
    return text if side.sd is None else f"{text} ± {side.sd * factor:,.{decimals}f}"


def _interval(found: Difference, factor: float, decimals: int) -> str:
    assert found.low is not None and found.high is not None
    return f"[{found.low * factor:+,.{decimals}f}, {found.high * factor:+,.{decimals}f}]"


def _notes(found: Sequence[Comparison], alone: Mapping[QuestionSet, str], names: Sequence[str]) -> Iterator[str]:
    """What a reader must know of the figures."""
    for questions, side in alone.items():
        yield f"Not compared: {' '.join(questions)}, which only {side} answered."
    lines = [line for comparison in found for line in comparison.lines if line.name in names]
    for label in dict.fromkeys(line.implementation for line in lines if line.name in ("bleu_4", "rouge_l")):
        yield f"Captions: {label}."
    several = any(map(_several, found))
    drawn = "whole scenes and whole runs" if several else "whole scenes"
    yield f"Intervals: 95 %, 1,000 draws of {drawn}, the metric computed again on each. Without 0: a difference."
    if several:
        yield "±: standard deviation over runs. Pairs are runs of the same models, or of the same places with --paired."
    if any(1 in (len(comparison.a.models), len(comparison.b.models)) for comparison in found):
        yield "A side with one run speaks of that run; another seed may differ more than the interval says."
    if any(line.difference.verdict == "too few scenes" for line in lines):
        yield f"Too few scenes: fewer than {ENOUGH_SCENES}; the interval is shown, but it is not to be trusted."
