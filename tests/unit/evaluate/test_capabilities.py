"""Right answers by capability: means over questions, then the plain mean of three."""

from __future__ import annotations

import pytest

from drivedistill.evaluate.capabilities import measures
from drivedistill.evaluate.families import exact_match
from drivedistill.records import Prediction

TASKS = ("perception", "prediction", "behavior", "planning")


def answers(**right: str):
    """Answers by task, `1` right and `0` wrong, each in a scene of its own."""
    return [
        Prediction(id=f"{task}{i}", dataset="d", scene=f"{task}{i}", frame="f", split="test", regime="regular", task=task,
                   question="?", reference="a", prediction="a" if mark == "1" else "b", model="m", decode="greedy")
        for task, marks in right.items() for i, mark in enumerate(marks)
    ]  # fmt: skip


def points(items) -> dict[str, float]:
    return {name: measure.point for name, measure in measures(items).items()}


def test_reasoning_is_prediction_and_behavior_by_question():
    found = measures(answers(perception="1100", prediction="1", behavior="000", planning="11"))
    assert {name: measure.point for name, measure in found.items()} == {
        "perception": 0.5, "reasoning": 0.25, "planning": 1.0, "capabilities": pytest.approx(1.75 / 3)
    }  # fmt: skip
    assert [found[name].n for name in ("perception", "reasoning", "planning")] == [4, 4, 2]


def test_capabilities_count_the_same_however_often_they_are_asked_for():
    assert points(answers(perception="1" * 9, prediction="0", planning="0"))["capabilities"] == pytest.approx(1 / 3)


def test_without_all_three_there_is_no_mean():
    assert points(answers(perception="10", planning="1")) == {"perception": 0.5, "planning": 1.0}
    assert points(answers(behavior="01")) == {"reasoning": 0.5}
    assert points([]) == {}


@pytest.mark.parametrize("task", TASKS)
def test_of_one_capability_it_is_exact_match(task):
    items = answers(**{task: "11010"})
    (value,) = points(items).values()
    assert value == exact_match(items)["exact_match"].point


def test_statistics_have_a_row_of_every_answer_and_add_up():
    items = answers(perception="110", prediction="01", planning="1")
    for measure in measures(items).values():
        assert len(measure.statistics) == len(items)
        parts = measure.statistics[:3].sum(axis=0) + measure.statistics[3:].sum(axis=0)
        assert float(measure.value(parts)) == measure.point
