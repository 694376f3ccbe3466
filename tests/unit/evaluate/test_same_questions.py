"""Nothing is compared that was not asked of both sides, judged by one rule and measured on both."""

from __future__ import annotations

import pytest

from drivedistill.evaluate.compare import compare
from drivedistill.evaluate.compare_table import as_json, format_comparisons
from drivedistill.evaluate.families import measures_of
from drivedistill.evaluate.same_questions import Answers, match, runs_of
from drivedistill.problems import InputError


def compared(a, b, **options):
    return compare(a, b, meteor=False, tokenizer="approximate", **options)


def line(comparison, name):
    return next(line for line in comparison.lines if line.name == name)


def findings(a, b, **options):
    with pytest.raises(InputError) as caught:
        match(a, b, **options)
    return caught.value.problems


# The two sides are judged by the same rule, on the same answers.


def changed(run, **fields):
    """The answers of a run with other values of fields: a value for all, or a function of the place."""
    return Answers(run.file, [
        row.model_copy(update={name: value(place) if callable(value) else value for name, value in fields.items()})
        for place, row in enumerate(run.rows)
    ])  # fmt: skip


def test_reference_actions_that_differ_are_refused(answers):
    a = changed(answers("a", 40), meta_action="KEEP, STRAIGHT")
    [problem] = findings([a], [answers("b", 40)])
    assert (problem.file, problem.record) == ("b.jsonl", "regular drivelm challenge: q00")
    assert (problem.expected, problem.found[:4]) == ("meta_action 'KEEP, STRAIGHT', as in a.jsonl", "None")
    assert "40 in all" in problem.found


@pytest.mark.parametrize(("field", "low", "metric"), [("latency_ms", 9.0, "rsdr_80"), ("confidence", 0.9, "brier")])
def test_what_was_measured_is_compared_where_every_run_has_it(answers, field, low, metric):
    # A is measured on the first 25 and B on the last 25 questions; A is right on the first 20, B on the last 10 too.
    a = changed(answers("a", 20), **{field: lambda place: low if place < 25 else None})
    b = changed(answers("b", 40), **{field: lambda place: low if place >= 15 else None})
    [found] = compared([a], [b])
    both = {side: list(run.rows[15:25]) for side, run in (("a", a), ("b", b))}
    by_hand = measures_of(both, meteor=False, tokenizer="approximate")
    of = line(found, metric)
    assert (of.difference.n, of.difference.num_scenes) == (10, 10)
    assert (of.a.mean, of.b.mean) == pytest.approx((by_hand["a"][metric].point, by_hand["b"][metric].point))
    assert line(found, "exact_match").difference.n == 40
    shown = format_comparisons([found], {})
    assert f"{field}: 25 questions of A have it, 25 of B; compared on the 10 that have it in every run" in shown
    assert as_json([found], {})["sets"][0]["partly"] == ({"field": field, "a": 25, "b": 25, "both": 10},)


def test_what_no_question_has_on_both_sides_is_not_compared(answers):
    a = changed(answers("a", 40), latency_ms=lambda place: 9.0 if place < 20 else None, confidence=0.9)
    b = changed(answers("b", 40), latency_ms=lambda place: 999.0 if place >= 20 else None)
    [found] = compared([a], [b])
    assert not {"rsdr_80", "in_time_80", "brier", "confidence"} & {each.name for each in found.lines}
    shown = format_comparisons([found], {})
    assert "latency_ms: 20 questions of A have it, 20 of B; not compared, none has it in every run" in shown
    assert "confidence: 40 questions of A have it, 0 of B; not compared, none has it in every run" in shown


def test_what_every_answer_has_or_none_is_not_mentioned(answers):
    a, b = (changed(answers(name, 40), latency_ms=9.0) for name in "ab")
    [found] = compared([a], [b])
    assert (found.partly, line(found, "rsdr_80").difference.n) == ((), 40)
    assert "have it" not in format_comparisons([found], {})


# Runs that lack a set.


def run(answers, model, *regimes):
    """A run that answered some sets."""
    rows = [row for regime in regimes for row in answers(model, 9, regime=regime).rows]
    return Answers(f"{model}.jsonl", rows)


def test_a_run_without_a_set_that_others_have_is_refused(answers):
    a = [run(answers, "a0", "regular", "corner"), run(answers, "a1", "regular")]
    b = [run(answers, "b0", "regular"), run(answers, "b1", "regular", "corner")]
    for paired in (True, False):
        found = findings(a, b, paired=paired)
        assert [(each.file, each.record, each.found) for each in found] == [
            ("a1.jsonl", "corner drivelm challenge", "answers to regular drivelm challenge"),
            ("b0.jsonl", "corner drivelm challenge", "answers to regular drivelm challenge"),
        ]
        assert found[0].expected == "answers to this set, as in a0.jsonl, b1.jsonl"
    [regular] = findings(a, [b[1], run(answers, "b2", "regular", "corner")])
    assert regular.file == "a1.jsonl"


def test_runs_without_a_set_leave_their_pairs(answers):
    a = [run(answers, "a0", "regular", "corner"), run(answers, "a1", "regular"), run(answers, "a2", "corner")]
    b = [run(answers, f"b{seed}", "regular", "corner") for seed in range(3)]
    regular, corner = match(a, b, common=True, paired=True)
    assert (regular.a.places, regular.b.places, regular.without) == ((0, 1), (0, 1), ("a2.jsonl", "b2.jsonl"))
    assert (corner.a.places, corner.b.places, corner.without) == ((0, 2), (0, 2), ("a1.jsonl", "b1.jsonl"))
    assert (corner.a.side.models, corner.b.side.models) == (("a0", "a2"), ("b0", "b2"))
    apart = match(a, b, common=True)[1]
    assert (apart.a.places, apart.b.places, apart.without) == ((0, 2), (0, 1, 2), ("a1.jsonl",))
    shown = format_comparisons(compared(a, b, common=True, paired=True), {})
    assert "  runs left out, that or whose partner did not answer this set: a1.jsonl, b1.jsonl" in shown


def test_runs_of_different_seeds_are_no_pair(answers):
    a = [run(answers, "a0", "regular", "corner"), run(answers, "a1", "regular")]
    b = [run(answers, "b0", "regular"), run(answers, "b1", "regular", "corner")]
    [problem] = findings(a, b, common=True, paired=True)
    assert (problem.record, problem.found) == ("corner drivelm challenge", "none")
    assert "a pair of runs" in problem.expected
    [_, corner] = match(a, b, common=True)
    assert (corner.a.places, corner.b.places) == ((0,), (1,))


def test_runs_of_the_same_models_keep_their_partner_where_one_lacks_a_set(answers):
    a = [run(answers, "one", "regular", "corner"), run(answers, "two", "regular", "corner")]
    b = [run(answers, "two", "regular", "corner"), run(answers, "one", "regular")]
    corner = match(a, b, common=True)[1]
    assert (corner.a.side.models, corner.b.side.models, corner.paired) == (("two",), ("two",), True)
    assert (corner.a.places, corner.b.places) == ((1,), (0,))


def test_files_of_a_model_with_other_sets_are_one_run(answers):
    regular = [run(answers, model, "regular") for model in ("a0", "a1")]
    corner = [Answers(f"corner-{model}.jsonl", run(answers, model, "corner").rows) for model in ("a1", "a0")]
    joined = runs_of([*regular, *corner])
    assert [each.file for each in joined] == ["a0.jsonl, corner-a0.jsonl", "a1.jsonl, corner-a1.jsonl"]
    assert [len(each.rows) for each in joined] == [80, 80]
    seeds = [run(answers, "same", "regular"), run(answers, "same", "regular", "corner")]
    assert runs_of(seeds) == seeds, "both answered the regular questions, so they are two runs"
