"""What a run costs: the teacher's share of the time, the peak of memory, the epochs; also over a resume."""

from __future__ import annotations

import json
import time

import pytest

import tiny
from drivedistill.distill.teacher import LiveTeacher
from drivedistill.machine import Stopwatch, machine_facts, peak_memory_gb
from drivedistill.runs import run
from drivedistill.signals import Interrupted
from loops import stop_in

SLEEP = 0.05


def slow_teacher(monkeypatch):
    """Every question to the teacher takes 50 ms longer."""
    ask = LiveTeacher.signal

    def signal(self, *args, **kwargs):
        time.sleep(SLEEP)
        return ask(self, *args, **kwargs)

    monkeypatch.setattr(LiveTeacher, "signal", signal)


@pytest.fixture
def distilled(tmp_path):
    """A recipe of six steps with a teacher."""
    run(tiny.recipe(tmp_path, train__steps=1), tmp_path / "teacher")
    return tiny.recipe(tmp_path, teacher={"path": str(tmp_path / "teacher")})


def test_a_run_says_what_it_cost(tmp_path, distilled, monkeypatch):
    slow_teacher(monkeypatch)
    facts = run(distilled, tmp_path / "run")
    assert 6 * SLEEP <= facts["teacher_seconds"] < facts["seconds"] + 0.06  # seconds are rounded to a tenth
    assert facts["teacher_share"] > 0.3
    assert facts["epochs"] == 2.0  # 6 steps of 2 of 6 samples
    assert 0.05 < facts["peak_memory_gb"] <= peak_memory_gb() + 1e-3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["teacher_share"] == facts["teacher_share"]


def test_cost_accumulates_over_a_resume(tmp_path, distilled, monkeypatch):
    slow_teacher(monkeypatch)
    with monkeypatch.context() as patch:
        stop_in(patch, 3)
        with pytest.raises(Interrupted):
            run(distilled, tmp_path / "run")
    facts = run(distilled, tmp_path / "run", resume=True)
    assert 6 * SLEEP <= facts["teacher_seconds"] < 6 * SLEEP + facts["seconds"]
    assert facts["epochs"] == 2.0


def test_without_a_teacher_its_share_is_nothing(tmp_path):
    facts = run(tiny.recipe(tmp_path), tmp_path / "run")
    assert facts["teacher_share"] < 0.05


def test_a_stopwatch_counts_what_happens_inside_and_forgets_what_was_taken():
    watch = Stopwatch()
    for _ in range(2):
        with watch.running():
            time.sleep(0.01)
    time.sleep(0.3)
    assert 0.02 <= watch.take() < 0.3
    assert watch.take() == 0


def test_machine_is_named():
    facts = machine_facts()
    assert facts["device"]
    assert facts["threads"] >= 1
    assert {"torch", "transformers"} <= facts["versions"].keys()
