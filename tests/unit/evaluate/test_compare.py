"""Differences that can be checked: exact where nothing differs, mirrored, covering the truth, and recomputed from sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drivedistill.evaluate.compare import compare
from drivedistill.evaluate.compare_table import as_json, format_comparisons
from drivedistill.evaluate.difference import difference
from drivedistill.evaluate.families import measures_of
from drivedistill.evaluate.measure import Measure, draw_scenes, mean_of
from drivedistill.evaluate.same_questions import Answers, match, only_one_side, runs_of
from drivedistill.problems import InputError

SCENES = [f"s{number:02d}" for number in range(60)]


def means(rows):
    return [mean_of([float(value) for value in row], "") for row in rows]


def differ(a, b, scenes=SCENES, **options):
    return difference(means(a), means(b), draw_scenes(scenes, seed=0), **options)


def noise(runs, *, seed=0, shape=60):
    return np.random.default_rng(seed).normal(size=(runs, shape))


@pytest.mark.parametrize("paired", [True, False])
def test_a_model_against_itself_does_not_differ(paired):
    values = noise(1)
    found = differ(values, values, paired=paired)
    assert (found.mean, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "no difference shown")
    three = noise(3)
    assert differ(three, three).low == differ(three, three).high == 0.0


@pytest.mark.parametrize(("runs", "paired"), [((1, 1), True), ((3, 3), True), ((3, 3), False), ((3, 2), False)])
def test_the_difference_the_other_way_round_is_the_mirror_image(runs, paired):
    a, b = noise(runs[0]) + 0.5, noise(runs[1], seed=1)
    there, back = differ(a, b, paired=paired), differ(b, a, paired=paired)
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.sd == back.sd or there.sd == pytest.approx(back.sd)
    assert there.num_runs == back.num_runs[::-1]


def test_equal_differences_have_an_interval_of_no_width():
    values = noise(2)
    found = differ(values + 2, values)
    assert (found.low, found.high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found.verdict == "better"
    assert differ(values + 2, values, higher_is_better=False).verdict == "worse"
    assert differ(values + 2, values, higher_is_better=None).verdict is None


def test_one_run_is_the_plain_bootstrap_over_scenes():
    a, b = noise(1), noise(1, seed=1)
    draws = draw_scenes(SCENES, seed=0)
    values = (draws.counts @ (a - b)[0]) / 60
    found = differ(a, b)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert (found.sd, found.num_runs, found.n, found.num_scenes) == (None, (1, 1), 60, 60)


def test_runs_that_disagree_widen_the_interval():
    ones, zeros = np.ones(60), np.zeros(60)
    apart = differ([ones, -ones, zeros], [zeros] * 3)
    assert apart.low < -1
    assert apart.high > 1
    assert apart.verdict == "no difference shown"
    assert apart.sd == pytest.approx(1.0)
    agreed = differ([ones] * 3, [zeros] * 3)
    assert (agreed.low, agreed.high, agreed.sd) == (pytest.approx(1.0), pytest.approx(1.0), 0.0)


def test_scenes_of_all_runs_are_drawn_together():
    # Runs that agree add nothing: the interval is that of one of them.
    scenes = [f"s{number // 5}" for number in range(200)]
    values, zeros = np.array([float(number // 5 % 2) for number in range(200)]), np.zeros(200)
    one, four = differ([values], [zeros], scenes), differ([values] * 4, [zeros] * 4, scenes)
    assert one.high - one.low > 0.2
    assert (four.low, four.high) == pytest.approx((one.low, one.high))


def test_pairs_take_out_what_both_runs_of_a_seed_share():
    shared = np.array([[-3.0], [0.0], [3.0]])
    a, b = noise(3) / 10 + shared + 0.3, noise(3, seed=1) / 10 + shared
    assert differ(a, b).verdict == "better"
    assert differ(a, b, paired=False).verdict == "no difference shown"


@pytest.mark.parametrize(
    ("runs", "run_sd", "scene_sd", "paired"),
    [(1, 0.0, 1.0, True), (3, 0.0, 1.0, True), (3, 0.3, 1.0, True), (3, 1.0, 0.1, True), (3, 1.0, 0.1, False)],
)
def test_the_interval_covers_the_truth(runs, run_sd, scene_sd, paired):
    """Planted difference 1; runs, scenes and what is left over are normal. A plain bootstrap of 3 runs covers 73 %."""
    generator, covered, trials, draws = np.random.default_rng(7), 0, 200, draw_scenes(SCENES, seed=0)
    for _ in range(trials):
        by_scene, by_run = scene_sd * generator.normal(size=(1, 60)), run_sd * generator.normal(size=(runs, 1))
        a = 1 + by_scene + by_run + scene_sd * generator.normal(size=(runs, 60))
        b = (0 if paired else run_sd) * generator.normal(size=(runs, 1)) + np.zeros((runs, 60))
        found = difference(means(a), means(b), draws, paired=paired)
        covered += found.low <= 1 <= found.high
    assert 0.90 <= covered / trials <= 0.99


def test_a_planted_difference_is_found_and_a_missing_one_is_not():
    a, b = noise(3, shape=400), noise(3, seed=1, shape=400)
    scenes = [f"s{number % 80}" for number in range(400)]
    assert differ(a + 0.5, b, scenes).verdict == "better"
    assert differ(a, b + 0.5, scenes).verdict == "worse"
    assert differ(a, b, scenes).verdict == "no difference shown"


def test_few_scenes_have_an_interval_and_no_verdict():
    found = differ(noise(1, shape=29) + 9, noise(1, shape=29), SCENES[:29])
    assert found.verdict == "too few scenes"
    assert found.low > 0
    assert differ(noise(1, shape=30) + 9, noise(1, shape=30), SCENES[:30]).verdict == "better"
    only = difference(means([[1, 1]]), means([[0, 0]]), draw_scenes(["s", "s"], seed=0))
    assert (only.mean, only.low, only.high, only.num_scenes, only.verdict) == (1.0, None, None, 1, "too few scenes")


def test_scenes_without_a_question_that_counts_do_not_count():
    values = [1.0] * 20 + [None] * 40
    found = difference([mean_of(values, "")], [mean_of(values, "")], draw_scenes(SCENES, seed=0))
    assert (found.n, found.num_scenes, found.verdict) == (20, 20, "too few scenes")


def test_scenes_that_count_on_one_side_only_do_not_count():
    first, last = [1.0] * 20 + [None] * 40, [None] * 15 + [1.0] * 45
    found = difference([mean_of(first, "")], [mean_of(last, "")], draw_scenes(SCENES, seed=0))
    assert found.num_scenes == 5


def test_the_corpus_metric_is_computed_again_where_the_mean_of_sentences_has_the_other_sign():
    # Hits over words: A wins the many short sentences, B wins the few long ones, and so most words.
    hits_a = [(1.0, 1.0)] * 50 + [(0.0, 20.0)] * 10
    hits_b = [(0.0, 1.0)] * 50 + [(20.0, 20.0)] * 10
    a, b = (Measure(np.array(rows), lambda sums: sums[..., 0] / sums[..., 1], "", 60) for rows in (hits_a, hits_b))
    sentences = [np.mean([hits / words for hits, words in rows]) for rows in (hits_a, hits_b)]
    assert sentences[0] > sentences[1]
    found = difference([a], [b], draw_scenes(SCENES, seed=0))
    assert found.mean == pytest.approx((50 - 200) / 250)
    draws = draw_scenes(SCENES, seed=0).counts
    by_hand = [(line @ np.array(hits_a) - line @ np.array(hits_b))[0] / (line @ np.array(hits_a))[1] for line in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    assert found.verdict == "worse"


def test_a_draw_without_a_value_leaves_no_interval_and_no_verdict():
    rare = Measure(np.eye(60)[:, :1].repeat(2, axis=1), lambda sums: sums[..., 0] / sums[..., 1], "", 60)
    with np.errstate(invalid="ignore"):
        found = difference([rare], [rare], draw_scenes(SCENES, seed=0))
    assert (found.low, found.high, found.verdict) == (None, None, "too few scenes")


def test_sides_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="as many"):
        differ(noise(2), noise(3))
    with pytest.raises(ValueError, match="runs"):
        differ([], [])


# Files of answers.


def compared(a, b, **options):
    return compare(a, b, meteor=False, tokenizer="approximate", **options)


def line(comparison, name):
    return next(line for line in comparison.lines if line.name == name)


def test_every_metric_of_the_same_questions_is_compared(answers):
    [found] = compared([answers("a", 40)], [answers("b", 10)])
    assert (found.n, found.questions, found.left_out, found.unscored) == (
        40,
        ("regular", "drivelm", "challenge"),
        (0, 0),
        0,
    )
    exact = line(found, "exact_match")
    assert (exact.a.mean, exact.b.mean, exact.difference.mean, exact.difference.verdict) == (1.0, 0.25, 0.75, "better")
    by_hand = {side: measures_of({"": answers(side, right).rows}, meteor=False, tokenizer="approximate")[""]
               for side, right in (("a", 40), ("b", 10))}  # fmt: skip
    assert {"bleu_4", "rouge_l", "cider", "exact_match"} <= by_hand["a"].keys()
    for name, measure in by_hand["a"].items():
        assert line(found, name).difference.mean == pytest.approx(measure.point - by_hand["b"][name].point)


def test_the_order_of_rows_does_not_matter(answers):
    a, b = answers("a", 30), answers("b", 20)
    turned = Answers(b.file, list(reversed(b.rows)))
    assert compared([a], [b]) == compared([a], [turned]) == compared([Answers("a", list(reversed(a.rows)))], [b])


def test_a_file_against_itself(answers):
    a = answers("a", 17)
    [found] = compared([a], [a])
    for each in found.lines:
        assert (each.difference.mean, each.difference.low, each.difference.high) == (0.0, 0.0, 0.0)
        assert each.difference.verdict == "no difference shown"


def test_runs_of_the_same_models_are_pairs_whatever_their_order(answers):
    clear = [answers("one", 20), answers("two", 30)]
    fog = [answers("two", 25, condition="fog:3"), answers("one", 15, condition="fog:3")]
    [found] = compared(clear, fog)
    assert found.paired
    assert (found.a.condition, found.b.condition, found.b.models) == ("clean", "fog:3", ("one", "two"))
    shown = format_comparisons([found], {})
    assert "A  2 runs: one, two (greedy, clean)" in shown
    assert "B  2 runs: one, two (greedy, fog:3)" in shown
    assert line(found, "exact_match").difference.sd == pytest.approx(0.0, abs=1e-12)
    [others] = compared(clear, [answers("x", 15), answers("y", 25)])
    assert not others.paired
    assert compared(clear, [answers("x", 15), answers("y", 25)], paired=True)[0].paired


def findings(a, b, **options):
    with pytest.raises(InputError) as caught:
        match(a, b, **options)
    return caught.value.problems


def test_missing_answers_are_refused_and_counted(answers):
    [problem] = findings([answers("a", 40)], [answers("b", 40, n=35)])
    assert (problem.file, problem.record) == ("b.jsonl", "regular drivelm challenge")
    assert "40 questions" in problem.expected
    assert problem.found == "35 of them; 5 missing: q35, q36, q37 and 2 more"
    assert "--common" in problem.remedy
    [found] = compared([answers("a", 40)], [answers("b", 40, n=35)], common=True)
    assert (found.n, found.left_out) == (35, (5, 0))
    assert "5 questions of A, 0 of B" in format_comparisons([found], {})


def test_everything_that_does_not_fit_is_said_at_once(answers, make):
    a = answers("a", 40)
    other = [row.model_copy(update={"reference": "Else."}) if row.id == "q07" else row for row in answers("b", 9).rows]
    mixed = [row.model_copy(update={"model": "c"}) if row.id == "q01" else row for row in other]
    twice = Answers("twice.jsonl", [*answers("b", 9).rows, make(id="q00")])
    found = findings([a], [Answers("b.jsonl", mixed), twice, answers("d", 9, decode="beam-4")])
    text = "\n".join(map(str, found))
    assert "regular drivelm challenge: q07" in text
    assert "reference 'It is 7 m.', as in a.jsonl" in text
    assert "the answers of one model" in text
    assert "several to q00" in text
    assert "greedy, beam-4" in text


def test_sets_of_one_side_are_named(answers):
    corner = answers("a", 9, regime="corner", file="c.jsonl")
    assert only_one_side([answers("a", 9), corner], [answers("b", 9)]) == {("corner", "drivelm", "challenge"): "A"}
    assert len(match(runs_of([answers("a", 9), corner]), [answers("b", 9)])) == 1
    [problem] = findings([corner], [answers("b", 9)])
    assert "A: corner drivelm challenge; B: regular drivelm challenge" in problem.found


def test_answers_without_a_reference_are_counted(answers):
    blind = Answers("a.jsonl", [row.model_copy(update={"reference": None}) if row.id == "q00" else row
                                for row in answers("a", 9).rows])  # fmt: skip
    [found] = compared([blind], [blind])
    assert (found.n, found.unscored) == (39, 1)
    none = Answers("a.jsonl", [row.model_copy(update={"reference": None}) for row in answers("a", 9).rows])
    [found] = compared([none], [none])
    assert (found.n, found.unscored, found.lines) == (0, 40, ())
    assert "without a reference, not compared: 40" in format_comparisons([found], {})


def test_unequal_numbers_of_runs_are_no_pairs(answers):
    [problem] = findings([answers("a", 9), answers("b", 9)], [answers("c", 9)], paired=True)
    assert problem.found == "2 and 1"


def test_the_table_and_the_json_say_what_was_found(answers):
    found = compared([answers("a", 40), answers("b", 38)], [answers("c", 10), answers("d", 9)], paired=True)
    shown = format_comparisons(found, {("corner", "coda_lm", "Val"): "B"}, ["exact_match", "bleu_4"])
    [row] = [line.split() for line in shown.splitlines() if line.strip().startswith("Exact match")]
    assert row[2:9] == ["97.50", "±", "3.54", "23.75", "±", "1.77", "+73.75"]
    assert row[-3:] == ["40", "40", "better"]
    assert "Not compared: corner coda_lm Val, which only B answered." in shown
    assert "ROUGE-L  " not in shown
    assert max(map(len, shown.splitlines())) <= 128
    tree = as_json(found, {}, ["exact_match"])
    [exact] = tree["sets"][0]["lines"]
    assert exact["difference"]["verdict"] == "better"
    assert math.isclose(exact["difference"]["mean"], 0.7375)
    assert tree["sets"][0]["a"] == {"models": ("a", "b"), "decode": "greedy", "condition": "clean"}


def test_what_makes_no_model_better_has_no_verdict(answers):
    sure, unsure = answers("a", 20, confidence=0.9), answers("b", 20, confidence=0.4)
    [found] = compared([sure], [unsure])
    confidence = line(found, "confidence").difference
    assert (confidence.mean, confidence.low, confidence.verdict) == (pytest.approx(0.5), pytest.approx(0.5), None)
    assert "no verdict" in format_comparisons([found], {})
