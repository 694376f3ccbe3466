"""Confidence against correctness: values by hand, what must hold always, and what a careless implementation gets wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from drivedistill.cli import app
from drivedistill.evaluate.calibration import (
    accuracy_of_most_confident,
    answered,
    auroc,
    bin_of,
    curves,
    findings,
    measures,
)
from drivedistill.evaluate.compare import compare
from drivedistill.evaluate.correct import is_right, rule_of
from drivedistill.evaluate.families import answer_findings, answer_measures
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.same_questions import Answers
from drivedistill.evaluate.score import score
from drivedistill.records import Prediction, write_jsonl

Make = Callable[..., Prediction]
PLANNING = "Please answer your SPEED plan and your PATH plan."


def answers(make: Make, pairs: list[tuple[float | None, bool]]) -> list[Prediction]:
    return [
        make(id=f"q{n}", scene=f"s{n}", prediction="A car." if right else "A bus.", confidence=confidence)
        for n, (confidence, right) in enumerate(pairs)
    ]


def error_of(items: list[Prediction]) -> float:
    return findings(items)["calibration_error"].value


def test_values_by_hand(make: Make) -> None:
    items = answers(make, [(0.95, True), (0.92, False), (0.55, True), (0.31, False)])
    found = measures(items)
    assert found["confidence"].point == pytest.approx(2.73 / 4)
    # One bin with 0.95 and 0.92 (half right), one with 0.55, one with 0.31.
    assert error_of(items) == pytest.approx((2 * abs(0.935 - 0.5) + 0.45 + 0.31) / 4)
    assert found["brier"].point == pytest.approx((0.05**2 + 0.92**2 + 0.45**2 + 0.31**2) / 4)
    values = {name: finding.value for name, finding in findings(items).items()}
    assert values["auroc"] == 0.75  # of the four pairs, only (0.55, 0.92) is in the wrong order
    assert values["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert values["accuracy_at_90"] == 0.5
    assert values["accuracy_at_80"] == 0.5
    assert values["accuracy_at_50"] == 0.5


def test_a_model_that_knows_is_calibrated_and_ordered(make: Make) -> None:
    items = answers(make, [(1.0, True)] * 6 + [(0.0, False)] * 4)
    assert {name: measure.point for name, measure in measures(items).items()} == {
        "confidence": 0.6,
        "brier": 0.0,
    }
    assert error_of(items) == 0
    found = findings(items)
    assert found["auroc"].value == 1
    assert found["accuracy_at_50"].value == 1
    assert found["accuracy_at_80"].value == 6 / 8


def test_constant_confidence_orders_nothing(make: Make) -> None:
    items = answers(make, [(0.7, True)] * 3 + [(0.7, False)])
    found = {name: finding.value for name, finding in findings(items).items()}
    assert found == {
        "calibration_error": pytest.approx(0.05),
        "auroc": 0.5,
        "aurc": pytest.approx(0.25),
        "accuracy_at_90": 0.75,
        "accuracy_at_80": 0.75,
        "accuracy_at_50": 0.75,
    }


pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.7, 0.9, 1.0]), st.booleans()), min_size=2, max_size=30
)


@given(pairs, st.randoms())
def test_the_order_of_the_answers_does_not_matter(given_pairs: Any, random: Any) -> None:
    mixed = list(given_pairs)
    random.shuffle(mixed)
    for function in (accuracy_of_most_confident, auroc):
        values = []
        for some in (given_pairs, mixed):
            sure, right = (np.array(column, dtype=float) for column in zip(*some, strict=True))
            if function is auroc and right.min() == right.max():
                return
            values.append(function(sure, right))
        np.testing.assert_allclose(values[0], values[1])


@given(pairs)
def test_auroc_is_the_share_of_pairs_in_order(given_pairs: Any) -> None:
    hits = [confidence for confidence, right in given_pairs if right]
    misses = [confidence for confidence, right in given_pairs if not right]
    if hits and misses:
        share = np.mean([(hit > miss) + (hit == miss) / 2 for hit in hits for miss in misses])
        sure, right = (np.array(column, dtype=float) for column in zip(*given_pairs, strict=True))
        assert auroc(sure, right) == pytest.approx(share)


@given(pairs)
def test_answering_everything_has_the_accuracy_of_all(given_pairs: Any) -> None:
    sure, right = (np.array(column, dtype=float) for column in zip(*given_pairs, strict=True))
    accuracy = accuracy_of_most_confident(sure, right)
    assert accuracy[-1] == pytest.approx(right.mean())
    assert (accuracy >= -1e-12).all()
    assert (accuracy <= 1 + 1e-12).all()


def test_equal_confidences_share_their_places() -> None:
    """Of two equal ones, one right: half an answer is right at the first place."""
    accuracy = accuracy_of_most_confident(np.array([0.9, 0.9, 0.5]), np.array([0.0, 1.0, 1.0]))
    assert accuracy.tolist() == pytest.approx([0.5, 0.5, 2 / 3])


def test_refusing_helps_when_confidence_is_informative(make: Make) -> None:
    generator = np.random.default_rng(0)
    sure = generator.uniform(size=400)
    items = answers(make, [(float(c), bool(generator.uniform() < c)) for c in sure])
    found = {name: finding.value for name, finding in findings(items).items()}
    accuracy = np.mean([is_right(item) for item in items])
    assert accuracy < found["accuracy_at_90"] < found["accuracy_at_80"] < found["accuracy_at_50"]
    assert error_of(items) < 0.08  # confidence is the probability to be right
    backwards = [item.model_copy(update={"confidence": 1 - (item.confidence or 0)}) for item in items]
    assert findings(backwards)["accuracy_at_50"].value < accuracy
    assert error_of(backwards) > 0.3


def test_a_bin_holds_its_upper_edge() -> None:
    assert bin_of(np.array([0.0, 0.05, 0.1, 0.100001, 0.3, 0.7, 0.9, 0.95, 1.0])).tolist() == [
        0,
        0,
        0,
        1,
        2,
        6,
        8,
        9,
        9,
    ]


def test_coverage_is_at_least_what_was_asked() -> None:
    assert [answered(n, 90) for n in (1, 3, 10, 11, 100)] == [1, 3, 9, 10, 90]
    assert answered(110, 90) == 99  # 0.9 * 110 is a little more than 99 in binary


def test_answers_without_confidence_do_not_count(make: Make) -> None:
    known = [(0.9, True), (0.4, False)]
    some, all_known = answers(make, [*known, (None, True), (None, False)]), answers(make, known)
    for name, measure in measures(some).items():
        assert (measure.point, measure.n) == (measures(all_known)[name].point, 2)
        assert len(measure.statistics) == 4
    assert findings(some) == findings(all_known)
    assert measures(answers(make, [(None, True)])) == {}
    assert findings(answers(make, [(None, True)])) == {}


def test_no_auroc_without_both_kinds(make: Make) -> None:
    found = findings(answers(make, [(0.9, True), (0.4, True)]))
    assert "auroc" not in found
    assert found["aurc"].value == 0


def test_errors_within_a_bin_cancel(make: Make) -> None:
    items = answers(make, [(0.75, True), (0.75, False), (0.75, True), (0.75, True)])
    assert error_of(items) == pytest.approx(0)
    assert error_of(items[:2]) == pytest.approx(0.25)


def test_calibration_error_is_no_sum_over_answers_so_it_has_neither_interval_nor_verdict(make: Make) -> None:
    """Draws of a calibrated model all have a positive error: an interval of them would exclude the truth, 0."""
    generator = np.random.default_rng(0)
    sure = generator.uniform(size=200)
    items = answers(make, [(float(c), bool(generator.uniform() < c)) for c in sure])
    drawn = [error_of([items[n] for n in generator.integers(200, size=200)]) for _ in range(100)]
    assert error_of(items) < np.mean(drawn) and min(drawn) > 0
    assert "calibration_error" not in answer_measures(items) and "brier" in answer_measures(items)
    rows = {row.name: row for row in score(items, meteor=False, tokenizer="approximate") if row.task == "all"}
    assert rows["calibration_error"].low is None and rows["brier"].low is not None
    other = [item.model_copy(update={"model": "other"}) for item in items]
    sides = [[Answers("a.jsonl", items)], [Answers("b.jsonl", other)]]
    (found,) = compare(*sides, meteor=False, tokenizer="approximate")
    compared = {line.name for line in found.lines}
    assert "brier" in compared and "calibration_error" not in compared


def test_right_is_read_as_it_was_asked(make: Make) -> None:
    asked = {"meta_action": "STOP, STRAIGHT", "reference": "STOP, STRAIGHT"}
    assert is_right(make(question=PLANNING, prediction="STOP, STRAIGHT\n", **asked))
    assert not is_right(make(question=PLANNING, prediction="KEEP, STRAIGHT", **asked))
    assert not is_right(make(question=PLANNING, prediction="I would stop.", **asked))
    assert is_right(make(question="What now?", prediction="I would stop.", **asked))
    assert not is_right(make(question="What now?", prediction="It is raining.", **asked))
    assert is_right(make(prediction=" a  CAR. "))
    assert not is_right(make(prediction="A car"))
    rules = [rule_of(make(question=question, meta_action=action)) for question, action in
             ((PLANNING, "KEEP, STRAIGHT"), ("What now?", "KEEP, STRAIGHT"), (PLANNING, None))]  # fmt: skip
    assert rules == ["meta-action", "meta-action in words", "exact match"]


def test_families_know_them_and_score_prints_them(make: Make) -> None:
    items = answers(make, [(0.9, True), (0.4, False), (0.8, True)])
    names = {*measures(items), *findings(items)}
    assert names <= METRICS.keys()
    assert names <= {*answer_measures(items), *answer_findings(items)}
    rows = {row.name: row for row in score(items, meteor=False, tokenizer="approximate") if row.task == "all"}
    assert rows["auroc"].value == 1
    assert not rows["calibration_error"].higher_is_better
    assert "exact match (3)" in rows["brier"].implementation


def test_curves_by_place(make: Make) -> None:
    items = answers(make, [(0.95, True), (0.92, False), (0.55, True), (0.31, False)])
    other = [item.model_copy(update={"regime": "corner"}) for item in items[:2]]
    unknown = [make(id="x", reference=None, confidence=0.5), make(id="y")]
    regular, corner = curves([*items, *other, *unknown])
    assert (regular["regime"], regular["n"], corner["regime"], corner["n"]) == ("regular", 4, "corner", 2)
    assert regular["bins"][9] == {"low": 0.9, "high": 1.0, "n": 2, "confidence": pytest.approx(0.935), "accuracy": 0.5}
    assert regular["bins"][0] == {"low": 0.0, "high": 0.1, "n": 0, "confidence": None, "accuracy": None}
    gaps = [row["n"] * abs(row["confidence"] - row["accuracy"]) for row in regular["bins"] if row["n"]]
    assert sum(gaps) / 4 == pytest.approx(error_of(items))
    assert regular["coverage"][-1] == {"percent": 100, "n": 4, "least_confidence": 0.31, "accuracy": 0.5}
    assert regular["coverage"][0]["accuracy"] == 1
    assert curves(unknown) == []


def test_the_verb_writes_bins_where_there_are_confidences(make: Make, tmp_path: Path) -> None:
    for name, confidence in (("sure", 0.9), ("silent", None)):
        write_jsonl(tmp_path / f"{name}.jsonl", answers(make, [(confidence, True), (confidence, False)]))
        asked = ["score", str(tmp_path / f"{name}.jsonl"), "--no-meteor", "--tokenizer", "approximate"]
        done = CliRunner().invoke(app, asked, catch_exceptions=False)
        assert done.exit_code == 0
        assert ("confidence against correctness" in done.stdout) == (confidence is not None)
    (found,) = json.loads((tmp_path / "sure.calibration.json").read_text("utf-8"))
    assert math.isclose(found["accuracy"], 0.5)
    assert not (tmp_path / "silent.calibration.json").exists()
