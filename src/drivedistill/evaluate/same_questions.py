"""Answers of two sides to the same questions, side by side: nothing is compared that was not asked of both.

A side is the runs (training seeds) of one model, each with its file of answers. Sets of questions (regime, data set, split)
are matched one by one; in each, a side has one way of decoding and one condition of the pictures, and the two sides may
differ in these: that is how greedy and beam search, or clear pictures and fog, are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drivedistill.evaluate.measured_values import Partly, in_every_run
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction

_SHOWN = 3
"""Ids that a finding names."""

SAME = ("question", "reference", "meta_action", "scene")
"""What is alike wherever an id is; `meta_action` also says by which rule an answer is right."""


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
class SideAnswers:
    """One side of a set of questions."""

    side: Side
    places: tuple[int, ...]
    """Of these runs among all of the side."""
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
    without: tuple[str, ...]
    """Files of the runs that did not answer this set, and of those paired with them; none without `common`."""


Found = dict[str, Prediction]
"""Id -> answer of one run."""


class _Run(NamedTuple):
    """The answers of one run."""

    place: int
    """Among the runs of its side, as they were given."""
    file: str
    sets: dict[QuestionSet, Found]

    @property
    def models(self) -> list[str]:
        return sorted({row.model for found in self.sets.values() for row in found.values()})


def match(a: Sequence[Answers], b: Sequence[Answers], *, common: bool = False, paired: bool = False) -> list[Matched]:
    """The sets of questions that both sides answered, regular ones first, questions by id.

    Args:
        a: Runs of A, each with all its sets; `runs_of` joins files.
        b: Runs of B.
        common: Leave out questions that some run did not answer, and of a set the runs that did not answer it, each with
            its partner; otherwise they are findings.
        paired: The runs belong together in this order. Runs of the same models always do, and one run a side.

    Raises:
        InputError: No set in common; a run without a set that others have; answers that are missing, repeated, of several
            models, ways of decoding or conditions; questions, references, reference actions or scenes that differ; sides
            that cannot be paired.
    """
    problems: list[Problem] = []
    runs_a, runs_b = ([_read(place, run, problems) for place, run in enumerate(side)] for side in (a, b))
    sets_of_a, sets_of_b = ({found for run in side for found in run.sets} for side in (runs_a, runs_b))
    sets = sorted(sets_of_a & sets_of_b, key=lambda found: (found.regime != "regular", found))
    if not sets and not problems:
        found = f"A: {_names(sets_of_a)}; B: {_names(sets_of_b)}"
        problems.append(Problem("A and B", "", "answers to the same data", found, "compare the same splits"))
    runs_b, paired = _paired(runs_a, runs_b, problems, paired=paired)
    matched = []
    for questions in sets:
        try:
            matched.append(_match(questions, runs_a, runs_b, common=common, paired=paired))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return matched


def runs_of(files: Sequence[Answers]) -> list[Answers]:
    """The runs that answers are of: files of one model that have no set of questions in common are one run."""
    models: dict[tuple[str, ...], list[Answers]] = {}
    for file in files:
        models.setdefault(tuple(sorted({row.model for row in file.rows})), []).append(file)
    runs: list[Answers] = []
    for same in models.values():
        sets = [found for file in same for found in {set_of(row) for row in file.rows}]
        if len(set(sets)) == len(sets):
            runs.append(Answers(", ".join(file.file for file in same), [row for file in same for row in file.rows]))
        else:
            runs += same
    return runs


def only_one_side(a: Sequence[Answers], b: Sequence[Answers]) -> dict[QuestionSet, str]:
    """Sets of questions that only one side answered -> `A` or `B`."""
    sets = [dict.fromkeys(set_of(row) for run in side for row in run.rows) for side in (a, b)]
    return {found: "A" for found in sets[0] if found not in sets[1]} | {
        found: "B" for found in sets[1] if found not in sets[0]
    }


def _names(sets: Iterable[QuestionSet]) -> str:
    return ", ".join(map(" ".join, sorted(sets))) or "no answers"


def _read(place: int, run: Answers, problems: list[Problem]) -> _Run:
    """The answers of a run by set and id."""
    sets: dict[QuestionSet, Found] = {}
    twice: list[str] = []
    for row in run.rows:
        answers = sets.setdefault(set_of(row), {})
        if row.id in answers:
            twice.append(row.id)
        answers[row.id] = row
    if twice:
        remedy = "remove the repetitions; every seed, way of decoding and condition in a file of its own"
        problems.append(Problem(run.file, "", "one answer to every question", f"several to {_some(twice)}", remedy))
    return _Run(place, run.file, sets)


def _match(questions: QuestionSet, a: Sequence[_Run], b: Sequence[_Run], *, common: bool, paired: bool) -> Matched:
    where = " ".join(questions)
    sides = [[run for run in side if questions in run.sets] for side in (a, b)]
    answers = [[(run.file, run.sets[questions]) for run in side] for side in sides]
    both = [*answers[0], *answers[1]]
    problems = [*_unlike(where, both), *(found for side in answers for found in _mixed(where, side))]
    problems += [] if common else [*_without(questions, [*a, *b]), *_missing(where, both)]
    if problems:
        raise InputError(problems)
    if paired:
        sides = _pairs(questions, a, b)
    rows = [[run.sets[questions] for run in side] for side in sides]
    shared = sorted(set.intersection(*(set(found) for side in rows for found in side)))
    if not shared:
        remedy = "compare answers to the same questions"
        raise InputError(Problem("A and B", where, "questions that all runs answered", "none", remedy))
    ids = [id for id in shared if rows[0][0][id].reference is not None]
    chosen, partly = in_every_run([[[found[id] for id in ids] for found in side] for side in rows])
    of_a, of_b = (
        SideAnswers(_side(found), tuple(run.place for run in side), items)
        for side, found, items in zip(sides, rows, chosen, strict=True)
    )
    return Matched(
        questions=questions,
        a=of_a,
        b=of_b,
        paired=paired or len(sides[0]) == len(sides[1]) == 1,
        left_out=(_num_ids(rows[0]) - len(shared), _num_ids(rows[1]) - len(shared)),
        unscored=len(shared) - len(ids),
        partly=partly,
        without=tuple(run.file for side, kept in zip((a, b), sides, strict=True) for run in side if run not in kept),
    )


def _pairs(questions: QuestionSet, a: Sequence[_Run], b: Sequence[_Run]) -> list[list[_Run]]:
    """The runs of A, and of B, of which the partner answered the set, too."""
    pairs = [pair for pair in zip(a, b, strict=True) if all(questions in run.sets for run in pair)]
    if not pairs:
        remedy = "compare answers to the same questions, or leave --paired out"
        expected = "a pair of runs that both answered this set"
        raise InputError(Problem("A and B", " ".join(questions), expected, "none", remedy))
    return [list(side) for side in zip(*pairs, strict=True)]


def _num_ids(runs: Sequence[Found]) -> int:
    """Questions that some run answered."""
    return len(set().union(*runs))


def _side(runs: Sequence[Found]) -> Side:
    """Who answered: one model a run, one way of decoding and one condition a side."""
    rows = [next(iter(found.values())) for found in runs]
    return Side(tuple(row.model for row in rows), rows[0].decode, rows[0].condition)


def _without(questions: QuestionSet, runs: Sequence[_Run]) -> Iterator[Problem]:
    """Runs that did not answer a set that others did."""
    having = ", ".join(dict.fromkeys(run.file for run in runs if questions in run.sets))
    for run in runs:
        if questions not in run.sets:
            remedy = "answer it (the files of a run may be joined), or compare the runs that have it with --common"
            expected, found = f"answers to this set, as in {having}", f"answers to {_names(run.sets)}"
            yield Problem(run.file, " ".join(questions), expected, found, remedy)


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


def _paired(a: Sequence[_Run], b: Sequence[_Run], problems: list[Problem], *, paired: bool) -> tuple[list[_Run], bool]:
    """The runs of B, in the order of A's where they are of the same models; and whether they are pairs."""
    models = [[run.models for run in side] for side in (a, b)]
    if sorted(models[0]) == sorted(models[1]) and all(models[0].count(model) == 1 for model in models[0]):
        return [b[models[1].index(model)] for model in models[0]], True
    if paired and len(a) != len(b):
        remedy = "give as many files of A as of B, the same seed at the same place, or leave --paired out"
        expected = "as many runs of A as of B, to be paired"
        problems.append(Problem("A and B", "", expected, f"{len(a)} and {len(b)}", remedy))
        return [*b], False
    return [*b], paired


def _some(ids: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return f"{', '.join(ids[:_SHOWN])}{more}"
