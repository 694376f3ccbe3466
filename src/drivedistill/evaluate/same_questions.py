"""Answers of two sides to the same questions, side by side: nothing is compared that was not asked of both.

A side is the runs (training seeds) of one model, each with its file of answers. Sets of questions (regime, data set, split)
are matched one by one; in each, a side has one way of decoding and one condition of the pictures, and the two sides may
differ in these: that is how greedy and beam search, or clear pictures and fog, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction

_SHOWN = 3
"""Ids that a finding names."""

SAME = ("question", "reference", "meta_action", "scene")
"""What is alike wherever an id is; `meta_action` also says by which rule an answer is right."""

MEASURED = ("latency_ms", "confidence")
"""What is measured with an answer, and may not have been."""


class QuestionSet(NamedTuple):
    """What is compared together."""

    regime: str
    dataset: str
    split: str


@dataclass(frozen=True)
class Answers:
    """The answers of one run."""

    file: str
    """Where they are from, for findings."""
    rows: Sequence[Prediction]


@dataclass(frozen=True)
class Side:
    """Who answered, and how."""

    models: tuple[str, ...]
    """Of each run."""
    decode: str
    condition: str


@dataclass(frozen=True)
class Partly:
    """A measured value that not every answer has: it is compared on the questions of which every run has it."""

    field: str
    a: int
    """Questions of which some run of A has it."""
    b: int
    both: int
    """Questions of which every run of A and of B has it; elsewhere it is taken out of the answers."""


@dataclass(frozen=True)
class SideAnswers:
    """One side of a set of questions."""

    side: Side
    runs: tuple[tuple[Prediction, ...], ...]
    """m runs of n answers that have a reference; the same n questions in the same order on both sides."""


@dataclass(frozen=True)
class Matched:
    """A set of questions that both sides answered."""

    questions: QuestionSet
    a: SideAnswers
    b: SideAnswers
    paired: bool
    """Whether run i of A and run i of B belong together."""
    left_out: tuple[int, int]
    """Questions that a run of A, and that a run of B, answered and that are not compared, since another run did not."""
    unscored: int
    """Questions without a reference, not compared."""
    partly: tuple[Partly, ...]
    """Measured values that some of the answers compared have and others have not."""


Found = dict[str, Prediction]
"""Id -> answer of one run."""


def match(a: Sequence[Answers], b: Sequence[Answers], *, common: bool = False, paired: bool = False) -> list[Matched]:
    """The sets of questions that both sides answered, regular ones first, questions by id.

    Args:
        a: Runs of A; the sets of one run may be spread over several files.
        b: Runs of B.
        common: Leave questions out that some run did not answer; otherwise they are findings.
        paired: The runs belong together in this order. Runs of the same models always do, and one run a side.

    Raises:
        InputError: No set in common; answers that are missing, repeated, of several models, ways of decoding or
            conditions; questions, references or scenes that differ; sides that cannot be paired.
    """
    problems: list[Problem] = []
    sides = [_by_set(side, problems) for side in (a, b)]
    sets = sorted(sides[0].keys() & sides[1].keys(), key=lambda found: (found.regime != "regular", found))
    if not sets and not problems:
        found = "; ".join(f"{name}: {_names(side)}" for name, side in zip("AB", sides, strict=True))
        problems.append(Problem("A and B", "", "answers to the same data", found, "compare the same splits"))
    matched = []
    for questions in sets:
        try:
            matched.append(_match(questions, sides[0][questions], sides[1][questions], common=common, paired=paired))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return matched


def only_one_side(a: Sequence[Answers], b: Sequence[Answers]) -> dict[QuestionSet, str]:
    """Sets of questions that only one side answered -> `A` or `B`."""
    sets = [dict.fromkeys(set_of(row) for run in side for row in run.rows) for side in (a, b)]
    return {found: "A" for found in sets[0] if found not in sets[1]} | {
        found: "B" for found in sets[1] if found not in sets[0]
    }


def set_of(row: Prediction) -> QuestionSet:
    """The set of questions that an answer belongs to."""
    return QuestionSet(row.regime, row.dataset, row.split)


def _names(sets: dict[QuestionSet, list[tuple[str, Found]]]) -> str:
    return ", ".join(map(" ".join, sets)) or "no answers"


def _by_set(side: Sequence[Answers], problems: list[Problem]) -> dict[QuestionSet, list[tuple[str, Found]]]:
    """Set -> file and answers of every run that has it."""
    found: dict[QuestionSet, list[tuple[str, Found]]] = {}
    for run in side:
        of_run: dict[QuestionSet, Found] = {}
        twice: list[str] = []
        for row in run.rows:
            answers = of_run.setdefault(set_of(row), {})
            if row.id in answers:
                twice.append(row.id)
            answers[row.id] = row
        if twice:
            remedy = "remove the repetitions; every seed, way of decoding and condition in a file of its own"
            problems.append(Problem(run.file, "", "one answer to every question", f"several to {_some(twice)}", remedy))
        for questions, answers in of_run.items():
            found.setdefault(questions, []).append((run.file, answers))
    return found


def _match(
    questions: QuestionSet,
    a: Sequence[tuple[str, Found]],
    b: Sequence[tuple[str, Found]],
    *,
    common: bool,
    paired: bool,
) -> Matched:
    where = " ".join(questions)
    problems = [*_unlike(where, [*a, *b])]
    problems += [] if common else _missing(where, [*a, *b])
    sides: list[Side] = []
    for runs in (a, b):
        problems += (found := [*_mixed(where, runs)])
        answers = [next(iter(rows.values())) for _, rows in runs]
        if not found:
            sides.append(Side(tuple(row.model for row in answers), answers[0].decode, answers[0].condition))
    if problems:
        raise InputError(problems)
    b, sides[1], paired = _pair(where, sides[0], sides[1], b, paired=paired)
    shared = sorted(set.intersection(*(set(rows) for _, rows in (*a, *b))))
    if not shared:
        remedy = "compare answers to the same questions"
        raise InputError(Problem("A and B", where, "questions that all runs answered", "none", remedy))
    ids = [id for id in shared if a[0][1][id].reference is not None]
    chosen, partly = _measured([[[rows[id] for id in ids] for _, rows in runs] for runs in (a, b)])
    seen = [len(set.union(*(set(rows) for _, rows in runs))) for runs in (a, b)]
    return Matched(
        questions=questions,
        a=SideAnswers(sides[0], chosen[0]),
        b=SideAnswers(sides[1], chosen[1]),
        paired=paired,
        left_out=(seen[0] - len(shared), seen[1] - len(shared)),
        unscored=len(shared) - len(ids),
        partly=partly,
    )


def _measured(
    sides: Sequence[Sequence[Sequence[Prediction]]],
) -> tuple[list[tuple[tuple[Prediction, ...], ...]], tuple[Partly, ...]]:
    """The answers of each side and run, with no measured value that another run has not at the same question."""
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


def _missing(where: str, runs: Sequence[tuple[str, Found]]) -> Iterator[Problem]:
    asked = dict.fromkeys(id for _, rows in runs for id in rows)
    for file, rows in runs:
        if missing := [id for id in asked if id not in rows]:
            found = f"{len(rows):,} of them; {len(missing):,} missing: {_some(missing)}"
            remedy = "answer the rest, or compare what all have answered with --common"
            yield Problem(file, where, f"answers to all {len(asked):,} questions of the files", found, remedy)


def _unlike(where: str, runs: Sequence[tuple[str, Found]]) -> Iterator[Problem]:
    """Questions that are not the same although their ids are."""
    first: dict[str, tuple[str, Prediction]] = {}
    for file, rows in runs:
        for field in SAME:
            unlike = [
                id for id, row in rows.items() if id in first and getattr(first[id][1], field) != getattr(row, field)
            ]
            if unlike:
                other, row = first[unlike[0]]
                expected = f"{field} {getattr(row, field)!r}, as in {other}"
                found = f"{getattr(rows[unlike[0]], field)!r}; {len(unlike):,} in all: {_some(unlike)}"
                remedy = "compare answers to the same questions of the same data; predict again where a file is older"
                yield Problem(file, f"{where}: {unlike[0]}", expected, found, remedy)
        first = {id: (file, row) for id, row in rows.items()} | first


def _mixed(where: str, runs: Sequence[tuple[str, Found]]) -> Iterator[Problem]:
    """Several models in a file; several ways of decoding or conditions on a side."""
    for file, rows in runs:
        if len(models := dict.fromkeys(row.model for row in rows.values())) > 1:
            yield Problem(file, where, "the answers of one model", ", ".join(models), "a file for each model")
    for field in ("decode", "condition"):
        values = dict.fromkeys(getattr(row, field) for _, rows in runs for row in rows.values())
        if len(values) > 1:
            files = ", ".join(dict.fromkeys(file for file, _ in runs))
            yield Problem(files, where, f"one {field} on a side", ", ".join(values), "compare one with one")


def _pair(
    where: str, a: Side, b: Side, runs: Sequence[tuple[str, Found]], *, paired: bool
) -> tuple[Sequence[tuple[str, Found]], Side, bool]:
    """The runs of B, in the order of A's where they are of the same models; and whether they are pairs."""
    if sorted(a.models) == sorted(b.models) and len(set(a.models)) == len(a.models):
        order = [b.models.index(model) for model in a.models]
        return [runs[place] for place in order], Side(a.models, b.decode, b.condition), True
    if paired and len(a.models) != len(b.models):
        found = f"{len(a.models)} and {len(b.models)}"
        remedy = "give as many files of A as of B, the same seed at the same place, or leave --paired out"
        raise InputError(Problem("A and B", where, "as many runs of A as of B, to be paired", found, remedy))
    return runs, b, paired or len(a.models) == len(b.models) == 1


def _some(ids: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return f"{', '.join(ids[:_SHOWN])}{more}"
