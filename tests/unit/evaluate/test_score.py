"""All rows of a predictions file, the table and the gate."""

import subprocess
import sys
from typing import get_args

import pytest

from drivedistill.data import drivelm
from drivedistill.evaluate.judge import Verdict
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.score import score
from drivedistill.evaluate.score_table import format_scores, gate
from drivedistill.evaluate.submission import read_submission
from drivedistill.problems import InputError
from drivedistill.records import Capability

pytest.importorskip("pycocoevalcap")


class FakeJudge:
    """Rates by the length of the answer; an answer `mumble` gets an unreadable reply."""

    model = "fake"

    def rate(self, prompt, items):
        return [Verdict(None if item.answer == "mumble" else 10.0 * len(item.answer), "") for item in items]


def quick(predictions, **options):
    return score(predictions, meteor=False, tokenizer="approximate", **options)


def values(rows, task="all", **place):
    fits = [row for row in rows if row.task == task and all(getattr(row, k) == v for k, v in place.items())]
    return {row.name: row.value for row in fits}


@pytest.fixture
def predictions(make):
    regular = [
        make(id=f"r{n}", scene=f"s{n % 3}", task=("perception", "planning")[n % 2], reference=f"It is {n} m.",
             prediction=f"It is {n if n < 4 else 0} m.")
        for n in range(6)
    ]  # fmt: skip
    corner = [
        make(id=f"c{n}", scene=f"c{n}", dataset="coda_lm", split="Val", regime="corner", reference="A dog.",
             prediction="a  dog." if n else "")
        for n in range(3)
    ]  # fmt: skip
    return [*regular, *corner]


@pytest.fixture(scope="module")
def golden_rows(make, quick_meteor):
    """One run with METEOR for the tests that need it."""
    items = [
        make(id=f"{regime}{n}", scene=f"s{n}", regime=regime, prediction=answer)
        for regime in ("corner", "regular")
        for n, answer in enumerate(["A car.", "A car.", "A truck."])
    ]
    return score(items)


def test_rows_are_made_for_every_set_and_task_with_n_unit_and_label(predictions):
    rows = quick(predictions)
    place = {"regime": "regular", "dataset": "drivelm", "split": "challenge", "decode": "greedy"}
    assert values(rows, **place)["exact_match"] == pytest.approx(4 / 6)
    assert values(rows, "planning", **place)["exact_match"] == pytest.approx(2 / 3)
    assert values(rows, regime="corner", dataset="coda_lm")["exact_match"] == 0
    assert values(rows, regime="corner")["exact_match_stripped"] == pytest.approx(2 / 3)
    assert values(rows, regime="corner")["empty_answers"] == 1
    for row in rows:
        assert row.unit == METRICS[row.name].unit and row.implementation
        part = row.task != "all" or row.name in (*get_args(Capability), "capabilities")
        assert row.n == {"regular": 6, "corner": 3}[row.regime] or part
    assert len({(row.name, row.regime, row.task) for row in rows}) == len(rows)


def test_the_order_of_the_predictions_changes_no_number(predictions):
    def key(row):
        return row.regime, row.task, row.name

    forward, backward = sorted(quick(predictions), key=key), sorted(quick(predictions[::-1]), key=key)
    for one, two in zip(forward, backward, strict=True):
        assert one.value == pytest.approx(two.value, abs=1e-12)
        assert (one.low, one.high) == pytest.approx((two.low, two.high))


def test_every_number_made_of_sums_has_an_interval(predictions):
    rows = [row for row in quick(predictions) if row.unit != "samples"]
    assert {row.name for row in rows} > {"bleu_4", "rouge_l", "cider", "exact_match"}
    for row in rows:
        assert row.low is not None and row.low <= row.value <= row.high, row
    assert any(row.low < row.high for row in rows if row.name == "bleu_4" and row.task == "planning")


def test_one_scene_has_no_interval(make):
    rows = quick([make(id="a"), make(id="b")])
    assert all(row.low is None and row.high is None for row in rows)


def test_predictions_without_reference_are_counted_and_not_scored(make):
    rows = quick([make(id="a"), make(id="b", reference=None)])
    unscored = next(row for row in rows if row.name == "unscored")
    assert (unscored.value, unscored.n, unscored.higher_is_better) == (1, 2, False)
    assert next(row for row in rows if row.name == "exact_match").n == 1
    assert {row.name for row in quick([make(reference=None)])} == {"unscored", "empty_answers"}


def test_ways_of_decoding_are_scored_apart(make):
    rows = quick([make(id="a"), make(id="a", decode="beam-4", prediction="")])
    assert values(rows, decode="greedy")["exact_match"] == 1
    assert values(rows, decode="beam-4")["exact_match"] == 0


def test_unusable_files_are_refused_with_all_findings(make):
    with pytest.raises(InputError, match="at least one prediction"):
        score([])
    with pytest.raises(InputError) as caught:
        score([make(), make(), make(id="b", model="other")], challenge=True, judge=FakeJudge())
    assert [problem.record for problem in caught.value.problems] == ["model", "id", "tags", "judge"]
    assert "1 ids more than once, first drivelm s_f_0" in str(caught.value)


def test_thousands_of_repetitions_are_one_problem_and_other_models_are_none(make):
    rows = [make(id=f"q{i}") for i in range(1200)]
    with pytest.raises(InputError) as caught:
        score([*rows, *rows])
    [problem] = caught.value.problems
    assert problem.found == f"1,200 ids more than once, first {', '.join(f'drivelm q{i}' for i in range(5))}"
    with pytest.raises(InputError) as caught:
        score([*rows, *(row.model_copy(update={"model": "other"}) for row in rows)])
    assert [problem.record for problem in caught.value.problems] == ["model"]


@pytest.fixture
def tagged(make):
    answers = ["<c1,CAM_BACK,10.5,20.5>", "A car.", "mumble", "No.", "A"]
    questions = ["What is important?", "Is <c2,CAM_BACK,1.5,2.5> fast?", "Where?", "Why?", "Which?"]
    tags = [(2, 3), (0,), (1,), (1,), (0,)]
    return [
        make(id=f"s_f_{n}", question=q, reference=a, prediction=a, tags=t)
        for n, (q, a, t) in enumerate(zip(questions, answers, tags, strict=True))
    ]


def test_tags_bring_the_challenge_unless_it_is_declined(tagged):
    found = values(quick(tagged))
    assert (found["accuracy"], found["accuracy_letter"], found["skipped_questions"]) == (1, 1, 1)
    assert found["match"] == found["match_f1"] == pytest.approx(100)
    assert "language" in found and "challenge_final" not in found and "judge" not in found
    assert "accuracy" not in values(quick(tagged, challenge=False))
    label = next(row.implementation for row in quick(tagged) if row.name == "match")
    assert "no judge" in label


def test_a_judge_completes_the_challenge(tagged):
    rows = quick(tagged, judge=FakeJudge())
    found = values(rows)
    assert found["judge"] == 30  # `No.`; `mumble` could not be read
    assert next(row.n for row in rows if row.name == "judge") == 1
    assert (found["judge_unparsable"], found["match"]) == (1, pytest.approx((100 + 230) / 2))
    expected = 0.4 * 0.30 + 0.2 * found["language"] + 0.2 * found["match"] / 100 + 0.2 * found["accuracy"]
    assert found["challenge_final"] == pytest.approx(expected)
    assert "judge fake" in next(row.implementation for row in rows if row.name == "challenge_final")


def test_coda_ratings_are_means_of_three_tasks_and_of_region_classes(make):
    items = [
        make(id="v_general", dataset="coda_lm", prediction="abcd"),
        make(id="v_suggestion", dataset="coda_lm", prediction="ab", task="planning"),
        make(id="v_region_1", dataset="coda_lm", prediction="abc", extra={"category": "bollard"}),
        make(id="v_region_2", dataset="coda_lm", prediction="mumble"),
    ]
    found = values(quick(items, judge=FakeJudge()))
    assert (found["judge_general"], found["judge_suggestion"], found["judge_region"]) == (40, 20, 30)
    assert found["judge_region_barrier"] == 30 and "judge_region_vehicle" not in found
    assert (found["judge"], found["judge_unparsable"]) == (30, 1)
    assert "judge" not in values(quick(items[:2], judge=FakeJudge()))


@pytest.mark.java
def test_the_average_is_the_papers(golden_rows):
    found = values(golden_rows, regime="regular")
    assert found["avg"] == pytest.approx(100 * (found["bleu_4"] + found["meteor"] + found["rouge_l"]) / 3)
    assert all(row.low is not None for row in golden_rows if row.name in ("avg", "meteor"))


@pytest.mark.java
def test_the_table_shows_regular_beside_corner(golden_rows):
    table = format_scores(golden_rows)
    lines = table.splitlines()
    assert lines[0].split() == ["regular", "corner"]
    assert next(line for line in lines if "Exact match" in line).count("66.67") == 2
    assert "METEOR" in table and "PTB" in table and "bootstrap" in table
    assert "Empty answers" not in table  # a count of zero is no news


def test_the_table_shows_rows_of_other_stages(predictions):
    rows = quick(predictions)
    other = rows[0].model_copy(update={"name": "action_f1", "unit": "fraction", "value": 0.5, "higher_is_better": True})
    assert (
        next(line for line in format_scores([*rows, other]).splitlines() if "action_f1" in line).split()[1] == "50.00"
    )


def test_the_gate_names_the_rows_that_fail(predictions):
    rows = quick(predictions)
    assert gate(rows, ["regular.exact_match=60", "regular.exact_match=0.6", "regular.unscored=0"]) == []
    assert [text.split(" = ")[0] for text in gate(rows, ["exact_match=0.6", "drivelm.planning.exact_match=70"])] == [
        "corner.coda_lm.all.exact_match",
        "regular.drivelm.planning.exact_match",
    ]
    assert "above 0" in gate(rows, ["corner.empty_answers=0"])[0]


@pytest.mark.parametrize("condition", ["blue_4=3", "bleu_4", "bleu_4=many", "night.bleu_4=3", "meteor=3"])
def test_a_gate_that_cannot_be_checked_is_refused(predictions, condition):
    with pytest.raises(InputError, match="--fail-under"):
        gate(quick(predictions), [condition])


def test_an_unknown_metric_is_met_with_the_nearest_ones(predictions):
    with pytest.raises(InputError) as caught:
        gate(quick(predictions), ["regular.rouge_1=3"])
    expected = caught.value.problems[0].expected
    assert expected.startswith("a metric, such as rouge_l") and expected.endswith("see docs/evaluation.md")
    assert len(expected) < 115


def test_scoring_imports_no_torch():
    code = (
        "import sys, drivedistill.evaluate.score, drivedistill.evaluate.score_table; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.java
@pytest.mark.drivelm
def test_the_official_zero_shot_answers_from_file_to_rows(drivelm_sample):
    reference = list(drivelm.read(drivelm_sample, "challenge", regime="regular"))
    rows = score(read_submission(drivelm_sample / "output.json", reference), meteor=False, challenge=True)
    found = values(rows)
    assert (found["accuracy"], found["match"], found["skipped_questions"]) == (0, 0, 35)
    assert found["language"] == pytest.approx(0.087255, abs=1e-6)
    assert {row.name: row.n for row in rows if row.task == "all"}["bleu_4"] == 66


def test_conditions_of_the_pictures_are_columns_of_their_own(make):
    rows = quick([make(prediction="A car."), make(prediction="No.", condition="fog:3")])
    text = format_scores(rows)
    assert "fog:3" in text and "clean" in text
    assert [row.value for row in rows if row.name == "exact_match" and row.task == "all"] == [1.0, 0.0]
    assert gate(rows, ["fog:3.exact_match=50"]) and not gate(rows, ["clean.exact_match=50"])


def test_answers_that_do_not_stop_are_counted(make):
    answers = ["A car.", "A car. A car. A car.", "A red car ahead.", ""]
    rows = quick(
        [make(id=str(n), reference="A red car." if n else "A car.", prediction=a) for n, a in enumerate(answers)]
    )
    assert values(rows)["run_on_answers"] == 2


def test_many_sets_make_several_tables_that_fit_a_screen(make):
    rows = quick([make(id=str(n), scene=str(n), dataset=f"set{k}") for k in range(6) for n in range(40)])
    text = format_scores(rows)
    assert max(map(len, text.splitlines())) <= 128
    assert [text.count(f"set{k} ") for k in range(6)] == [1] * 6 and text.count("BLEU-1") == 2
