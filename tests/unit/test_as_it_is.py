"""A run of no steps: a model that is there already becomes a run, unchanged."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

import tiny
from drivedistill.runs import run
from loops import logged


def test_a_run_of_no_steps_holds_the_model_as_it_came(tmp_path):
    run(tiny.recipe(tmp_path, train__steps=2), tmp_path / "first")
    again = tiny.recipe(tmp_path, model={"path": str(tmp_path / "first")}, train__steps=0)
    facts = run(again, tmp_path / "second")
    before, after = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert (facts["steps"], facts["best_step"], facts["epochs"]) == (0, 0, 0.0)
    assert facts["best_validation_loss"] > 0
    assert [record["step"] for record in logged(tmp_path / "second")] == [0]
    assert "Training: none, the model as it came" in (tmp_path / "second" / "model" / "README.md").read_text()
    assert run(again, tmp_path / "second", resume=True) == facts


def test_no_steps_with_a_teacher_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.steps: expected 1 or more"):
        tiny.recipe(tmp_path, train__steps=0, teacher={"path": "runs/teacher"})
