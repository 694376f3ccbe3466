"""RSD and RSDR: inclusive threshold, curves that end at the accuracy, clips, missing latencies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.evaluate.families import answer_findings, answer_measures
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.realtime import curve, findings, measures, percentile, rsd, rsdr
from drivedistill.evaluate.score import score
from drivedistill.records import Prediction

TIMES, RIGHT = [79.9, 80.0, 80.1, 10.0], [1, 1, 1, 0]


def answer(number: int, latency: float | None, right: bool, **changes: object) -> Prediction:
    row = {
        "id": f"q{number}", "dataset": "drawn", "scene": f"s{number // 2}", "frame": f"f{number}", "split": "test",
        "regime": "regular", "task": "planning", "question": "What now?", "reference": "Stop.",
        "prediction": "Stop." if right else "Go.", "model": "m", "decode": "greedy", "latency_ms": latency,
    }  # fmt: skip
    return Prediction.model_validate(row | changes)


ANSWERS = [answer(i, t, bool(a)) for i, (t, a) in enumerate(zip(TIMES, RIGHT, strict=True))]


def test_published_vector():
    assert rsd(TIMES, RIGHT, 80).tolist() == [1, 1, 0, 0]
    assert rsdr(TIMES, RIGHT, 80) == 0.5
    assert rsdr(TIMES, RIGHT, 100) == 0.75


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="latencies"):
        rsd([1.0, 2.0], [True], 80)


pairs = st.lists(st.tuples(st.floats(0, 500), st.booleans()), min_size=1, max_size=40)


@given(pairs, st.lists(st.floats(0, 600), min_size=2, max_size=20))
def test_curve_never_falls_and_ends_at_the_accuracy(answers, thresholds):
    times, right = zip(*answers, strict=True)
    values = curve(times, right, sorted(thresholds))
    assert (np.diff(values) >= 0).all()
    assert curve(times, right, [max(times)])[0] == np.mean(right)
    assert (values <= np.mean(right)).all()


@given(st.lists(st.floats(0, 500), min_size=1, max_size=40), st.sampled_from([50, 90, 99]))
def test_percentile_is_a_latency_that_so_many_do_not_exceed(times, percent):
    value = percentile(times, percent)
    assert value in times
    assert np.mean(np.array(times) <= value) >= percent / 100 - 1e-12
    assert np.mean(np.array(times) < value) < percent / 100 + 1e-12


def test_family_agrees_with_the_functions():
    found = measures(ANSWERS)
    assert {name: measure.point for name, measure in found.items()} == {
        "rsdr_80": 0.5, "in_time_80": 0.75, "rsdr_100": 0.75, "in_time_100": 1.0,
    }  # fmt: skip
    assert {measure.n for measure in found.values()} == {4}
    assert "exact match (4)" in found["rsdr_80"].implementation


def test_every_measure_has_a_row_of_statistics_per_answer():
    items = [*ANSWERS, answer(9, None, True)]
    assert {len(measure.statistics) for measure in measures(items).values()} == {5}


def test_missing_latencies_are_counted_and_not_taken_for_late_ones():
    items = [*ANSWERS, answer(8, None, True), answer(9, None, False)]
    assert measures(items)["rsdr_80"].point == 0.5
    assert measures(items)["rsdr_80"].n == 4
    assert findings(items)["without_latency"][:2] == (2, 6)
    assert "without_latency" not in findings(ANSWERS)
    assert findings(items)["latency_p50"].value == 79.9


def test_answers_without_any_latency_have_no_rows():
    assert not measures([answer(0, None, True)])
    assert not findings([answer(0, None, True)])


def test_right_means_the_meta_action_where_there_is_one():
    items = [
        answer(0, 10, False, meta_action="KEEP, STRAIGHT", prediction="keep, straight"),
        answer(1, 10, True, meta_action="KEEP, STRAIGHT"),
        answer(2, 10, True),
    ]
    measure = measures(items)["rsdr_80"]
    assert measure.point == pytest.approx(2 / 3)
    assert "exact match (1) and meta-action in words (2)" in measure.implementation


def test_a_clip_succeeds_if_all_its_frames_are_right_and_in_time():
    items = [
        answer(0, 10, True, extra={"clip": "a"}),
        answer(1, 20, True, extra={"clip": "a"}),
        answer(2, 10, True, extra={"clip": "b"}),
        answer(3, 90, True, extra={"clip": "b"}),
        answer(4, 10, True, extra={"clip": "c"}),
        answer(5, None, True, extra={"clip": "c"}),  # nobody knows
    ]
    found = measures(items)
    assert (found["rsdr_80_clip"].point, found["rsdr_80_clip"].n) == (0.5, 2)
    assert (found["rsdr_100_clip"].point, found["rsdr_100_clip"].n) == (1.0, 2)
    assert found["rsdr_80"].n == 5
    assert not any(name.endswith("clip") for name in measures(ANSWERS))


def test_clips_of_two_scenes_may_share_a_name():
    items = [answer(i, 10, bool(i), scene=f"s{i}", extra={"clip": "1"}) for i in range(2)]
    assert (measures(items)["rsdr_80_clip"].point, measures(items)["rsdr_80_clip"].n) == (0.5, 2)


def test_score_prints_the_family():
    rows = {row.name: row for row in score(ANSWERS, meteor=False, tokenizer="approximate") if row.task == "all"}
    assert rows["rsdr_80"].value == 0.5
    assert rows["rsdr_80"].low is not None
    assert rows["latency_p99"].value == 80.1
    assert not rows["latency_p99"].higher_is_better
    assert rows.keys() <= METRICS.keys()
    assert {"rsdr_80", "latency_p50"} <= {**answer_measures(ANSWERS), **answer_findings(ANSWERS)}.keys()
