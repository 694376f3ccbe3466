"""Who plays which part, which runs are pairs, which sets have right answers, and where pictures are read from."""

from dataclasses import replace

import pytest

from drivedistill.report.evidence import gather
from drivedistill.report.free_text import free_text_sets
from drivedistill.report.pictures import find_samples
from drivedistill.report.quality import gap, judged, right
from drivedistill.report.roles import roles_of
from drivedistill.report.summary import quality


@pytest.fixture(scope="module")
def roles(evidence):
    return roles_of(evidence.rows)


def with_seeds(row, answers):
    """A row with a run for every seed; None: the run has no answers."""
    first = row.runs[0]
    runs = [
        replace(first, facts=first.facts.model_copy(update={"seed": seed}), answers=rows or [])
        for seed, rows in answers.items()
    ]
    return replace(row, runs=tuple(runs))


def test_runs_of_the_same_seed_are_pairs(roles):
    def wrong(rows, of):
        return [item.model_copy(update={"prediction": "?"}) if place % of else item for place, item in enumerate(rows)]

    rows = roles.teacher.runs[0].answers
    worse = {0: wrong(rows, 2), 1: wrong(rows, 3), 2: wrong(rows, 5)}
    student = with_seeds(roles.student, worse)
    same = gap(with_seeds(roles.plain, worse), student, "regular", set())
    assert (same.mean, same.low, same.high, same.num_runs) == (0, 0, 0, (3, 3))
    gone = gap(
        with_seeds(roles.plain, worse | {0: None}), student, "regular", set()
    )  # seed 1 is not paired with seed 0
    assert (gone.mean, gone.low, gone.high, gone.num_runs) == (0, 0, 0, (2, 2))
    turned = with_seeds(roles.plain, {1: worse[0], 0: worse[1]})
    apart = gap(turned, with_seeds(roles.student, {0: worse[1], 1: worse[0], 2: None}), "regular", set())
    assert (apart.mean, apart.low, apart.high) == (0, 0, 0)  # whatever their order
    one = gap(with_seeds(roles.plain, worse), with_seeds(roles.student, {0: worse[0]}), "regular", set())
    assert one.num_runs == (3, 1)  # a single seed in common is no reason to drop the others
    none = gap(with_seeds(roles.plain, {None: worse[0]}), student, "regular", set())
    assert none.num_runs == (1, 3)


def test_a_teacher_that_is_not_there_is_not_taken_for_a_student(evidence):
    _, student, dis, clkd = evidence.rows

    def like(row, name, folder, **facts):
        run = replace(row.runs[0], folder=folder, facts=row.runs[0].facts.model_copy(update=facts))
        return replace(row, name=name, label=name, runs=(run,))

    folder = evidence.rows[0].runs[0].folder.with_name("elsewhere")
    moved = like(evidence.rows[0], "moved", folder, params_m=60.0, steps=900)
    found = roles_of([moved, dis, clkd])
    assert found.teacher is None and found.student is None
    assert found.absent is not None and found.absent.endswith("/teacher")
    assert "is not among these runs" in quality(replace(evidence, rows=[moved, dis, clkd]), found)
    with_student = roles_of([moved, student, dis, clkd])
    assert with_student.student is student  # of the size of the distilled ones
    assert roles_of(evidence.rows).absent is None
    assert "is not among these runs" not in quality(evidence, roles_of(evidence.rows))
    assert roles_of([moved]).student is moved  # nobody distils: it is what it seems
    same_steps = like(moved, "moved", moved.runs[0].folder, steps=dis.runs[0].facts.steps)
    assert roles_of([same_steps, dis]).student is None  # larger, however long it learnt
    unknown = like(student, "student", student.runs[0].folder, params_m=None)
    assert roles_of([unknown, dis]).student is unknown  # it learnt for as long


def test_pictures_are_found_whatever_was_left_out_of_training(evidence):
    student = evidence.rows[1]

    def reading(**changes):
        recipe = student.recipe
        source = recipe.data.sources[0].model_copy(update=changes)
        data = recipe.data.model_copy(update={"sources": [source]})
        run = replace(student.runs[0], recipe=recipe.model_copy(update={"data": data}))
        return replace(student, runs=(run,))

    absent = find_samples([reading(without=["no such kind"])], "test")
    assert len(absent.samples) == 80 and not absent.missing
    other = reading(files={"train": "train"}, templates=["no such kind"])
    assert find_samples([other], "test") == find_samples([], "test")
    few, many = ({"train": 1 - share, "test": share} for share in (0.1, 0.9))
    both = [reading(split_by="scene", file="test", fractions=shares) for shares in (few, many)]
    counts = [len(find_samples([row], "test").samples) for row in both]
    assert counts[0] < counts[1]
    assert len(find_samples(list(reversed(both)), "test").samples) >= counts[1]  # neither hides the other
    elsewhere = reading(split_by="scene", root=student.runs[0].folder / "nowhere", fractions={"train": 1.0})
    assert find_samples([elsewhere], "test").missing == ()


def test_free_text_is_decided_once_over_all_rows(evidence, roles):
    rows = roles.student.runs[0].answers
    told = [item.model_copy(update={"reference": f"story {place}"}) for place, item in enumerate(rows)]
    assert len(free_text_sets(told)) == 2
    assert len(free_text_sets([*told, *told, *told])) == 2  # more rows that answered it do not make it less so
    few = [item for item in told if item.regime == "corner"][:5]
    assert free_text_sets(few) == frozenset()  # five answers that differ say nothing
    long = [item.model_copy(update={"reference": f"{item.reference} " + "of a road and its cars " * 3}) for item in few]
    assert len(free_text_sets(long)) == 1
    assert judged(few, free_text_sets(told)) == []
    a, b = (with_seeds(row, {0: few}) for row in (roles.student, roles.plain))
    assert gap(a, b, "corner", free_text_sets(told)) == "answers are missing"
    assert gap(a, b, "corner", set()).n == 5
    assert right(a, "corner", free_text_sets(told)) is None


def test_one_decision_for_a_folder(folders, evidence):
    assert gather(folders).free_text == frozenset()
    assert "that have one right answer" in quality(evidence, roles_of(evidence.rows))
