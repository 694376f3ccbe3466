"""Quickstart from stage to stage, with a stand-in for the command line: what is done is kept, what is not goes on."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stand_in import play

from drivedistill.ablate.jobs import Ending, locked, run_jobs
from drivedistill.problems import InputError, RunError
from drivedistill.quickstart.origin import FILES, HALF_TOWER
from drivedistill.quickstart.plan import RECIPE, Call
from drivedistill.quickstart.record import NAME
from drivedistill.quickstart.run import describe, quickstart
from drivedistill.recipe import load_recipe
from drivedistill.signals import Interrupted
from drivedistill.world.dataset.write import Stopped

LINE = [sys.executable, "-S", str(Path(__file__).with_name("stand_in.py"))]
ROWS = ("teacher", "student", "dis", "moe", "h2g", "clkd")


class World:
    """Stands in for the generator: a manifest that is there once it was written."""

    def __init__(self) -> None:
        self.data_hash, self.manifest, self.error = "aa", None, None

    def write(self, out, settings, *, workers):
        if self.error:
            raise self.error
        for part in ("regular", "corner"):
            (out / part).mkdir(parents=True, exist_ok=True)
        self.manifest = {"data_hash": self.data_hash}
        return self.manifest

    def finished(self, out, settings):
        return self.manifest if out.is_dir() else None


@pytest.fixture
def world(monkeypatch) -> World:
    found = World()
    for name, method in (("write_world", found.write), ("finished", found.finished)):
        monkeypatch.setattr(f"drivedistill.quickstart.stages.{name}", method)
    return found


@pytest.fixture
def call(tmp_path, world, monkeypatch) -> Call:
    """A call with a teacher; its command lines are played by `stand_in.py`, here, one after the other."""
    for module in ("ablate.plan", "quickstart.stages", "quickstart.run"):
        monkeypatch.setattr(f"drivedistill.{module}.CLI", LINE)
    monkeypatch.setattr("drivedistill.quickstart.stages.run_jobs", in_turns)
    monkeypatch.setattr("drivedistill.report.write_report", lambda folders, out: out.write_text("page"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    teacher = tmp_path / "given"
    teacher.mkdir()
    for name in FILES:
        (teacher / name).write_text(json.dumps({"image_size": 64}))
    return Call(tmp_path / "out", jobs=2, teacher=teacher)


def in_turns(jobs, out, descriptor, at_once, board):
    """`run_jobs` without processes."""
    assert not {need for job in jobs for need in job.needs} & {job.name for job in jobs}, "within a stage nobody waits"
    endings = {}
    for job in jobs:
        codes = (play(command[len(LINE) :]) for command in job.commands())
        endings[job.name] = Ending(next((code for code in codes if code), 0))
    return endings


@pytest.fixture
def called(tmp_path):
    """The command lines since the last look."""

    def look() -> list[str]:
        path = tmp_path / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    return look


def verbs(lines: list[str]) -> list[str]:
    return [line.partition(" ")[0] for line in lines]


def test_all_stages_in_their_order_and_a_second_call_makes_nothing_again(call, called):
    said: list[str] = []
    report = quickstart(call, say=said.append)
    assert report.read_text() == "page"
    first = called()
    learnt = [line.split()[1] for line in first if line.startswith(("train", "distill"))]
    assert sorted(learnt) == sorted(str(call.table / row / "seed-0" / "recipe.yaml") for row in ROWS)
    assert verbs(first)[:2] == ["cache", "train"] and verbs(first)[-1] == "bench"
    assert verbs(first).count("cache") == 1, "the students read the teacher's features"
    assert verbs(first).count("predict") == verbs(first).count("score") == len(ROWS)
    assert sorted(verbs(first)[-4:-1]) == ["experts", "probe", "probe"]
    notes = json.loads((call.out / NAME).read_text())
    assert list(notes["seconds"]) == ["data", "teacher", "students", "controls", "bench", "report"]
    assert notes["data_hash"] == "aa" and notes["versions"]["torch"]
    before = {path: path.stat().st_mtime_ns for path in call.out.rglob("*") if path.name not in (NAME, ".lock")}

    said.clear()
    quickstart(replace(call, jobs=1), say=said.append)  # the number of jobs makes no other quickstart
    assert not called()
    assert said.count("there already") == 6
    after = {path: path.stat().st_mtime_ns for path in call.out.rglob("*") if path.name not in (NAME, ".lock")}
    changed = {path.name for path in before if before[path] != after.get(path)}
    assert changed <= {"table.yaml", "table"}, "the plan alone is written again"


def test_a_teacher_with_half_a_tower_has_one_student_more(call, called):
    shutil.copytree(call.teacher, call.teacher / HALF_TOWER)
    quickstart(call, say=lambda text: None)
    lines = called()
    assert verbs(lines).count("predict") == len(ROWS) + 1
    small = [line for line in lines if f"{call.table}/small/seed-0" in line and not line.startswith("bench")]
    assert verbs(small) == ["cache", "distill", "predict", "score"], "its tower's features are its own"
    bench = next(line for line in lines if line.startswith("bench"))
    assert f"{call.table}/small/seed-0" in bench and bench.count("/seed-0") == 4
    recipe = load_recipe(call.table / "small" / "seed-0" / "recipe.yaml")
    assert recipe.model.path == (call.teacher / HALF_TOWER).as_posix() and recipe.model.shrink is None
    whole = load_recipe(call.table / "clkd" / "seed-0" / "recipe.yaml")
    assert (recipe.train, recipe.distill, recipe.mining) == (whole.train, whole.distill, whole.mining)
    (call.teacher / HALF_TOWER / "model.safetensors").write_text("other weights")
    with pytest.raises(InputError, match="half_tower"):
        quickstart(call, say=lambda text: None)


def test_a_change_reaches_the_rows_that_have_what_is_changed(call):
    changes = (
        "mining.samples=75",
        "model.ffn_experts.k=1",
        "distill.weight=2",
        "model.shrink.encoder=[0]",
        "train.batch_size=4",
    )
    quickstart(replace(call, overrides=changes), say=lambda text: None)
    recipes = {row: load_recipe(call.table / row / "seed-0" / "recipe.yaml") for row in ROWS}
    assert {row for row in ROWS if recipes[row].mining} == {"h2g", "clkd"}
    assert {row for row in ROWS if recipes[row].model.ffn_experts} == {"moe", "h2g", "clkd"}
    assert recipes["clkd"].mining.samples == 75 and recipes["moe"].model.ffn_experts.k == 1
    assert recipes["dis"].distill.weight == 2 and recipes["student"].teacher is None
    assert recipes["student"].model.shrink.encoder == [0] and recipes["teacher"].model.shrink is None
    assert [recipes[row].train.batch_size for row in ("student", "clkd")] == [4, 4]


def test_a_page_that_somebody_else_wrote_over_is_written_again(call):
    report = quickstart(call, say=lambda text: None)
    report.write_text("another page")
    assert quickstart(call, say=lambda text: None).read_text() == "page"


def test_nothing_is_removed_before_the_new_call_is_known_to_be_possible(call):
    quickstart(call, say=lambda text: None)
    with pytest.raises(InputError, match="stepps"):
        quickstart(replace(call, overrides=("train.stepps=3",)), overwrite=True, say=lambda text: None)
    assert (call.table / "table.md").is_file()
    with locked(call.out), pytest.raises(InputError):
        quickstart(call, overwrite=True, say=lambda text: None)
    assert (call.table / "table.md").is_file()


def test_a_failure_is_said_and_the_same_call_goes_on_behind_it(call, called, monkeypatch, capsys):
    monkeypatch.setattr("drivedistill.quickstart.stages.run_jobs", run_jobs)  # with processes
    monkeypatch.setattr("drivedistill.ablate.jobs.POLL_S", 0.01)
    monkeypatch.setenv("FAIL", "experts")
    with pytest.raises(RunError, match=r"stage controls: clkd: experts \(see .*clkd-experts.txt\) failed.*goes on"):
        quickstart(call, say=lambda text: None)
    assert "it went wrong" in capsys.readouterr().err
    assert verbs(called()).count("probe") == 2
    monkeypatch.delenv("FAIL")
    quickstart(call, say=lambda text: None)
    assert verbs(called()) == ["experts", "bench"]


def test_a_student_that_failed_is_learnt_again_and_the_others_are_kept(call, called, monkeypatch):
    monkeypatch.setenv("FAIL", f"predict {call.table}/moe")
    with pytest.raises(RunError, match="stage students: moe/seed-0"):
        quickstart(call, say=lambda text: None)
    called()
    monkeypatch.delenv("FAIL")
    quickstart(call, say=lambda text: None)
    lines = called()
    assert verbs(lines)[:2] == ["predict", "score"], "it had learnt"
    assert [line for line in lines if "moe" not in line] == lines[2:]


def test_other_weights_are_measured_again(call, called, monkeypatch):
    quickstart(call, say=lambda text: None)
    called()
    shutil.rmtree(call.table / "student")
    monkeypatch.setenv("WEIGHTS", "other")
    quickstart(call, say=lambda text: None)
    assert verbs(called()) == ["train", "predict", "score", "bench"], "controls look at teacher and clkd alone"


def test_a_folder_made_in_another_way_is_refused_or_replaced(call, called):
    quickstart(call, say=lambda text: None)
    before = (call.out / NAME).read_bytes()
    changes = {"minutes": 20.0, "seed": 1, "overrides": ("train.batch_size=4",)}
    for other, field in [
        *((replace(call, **{name: value}), name) for name, value in changes.items()),
        (call, "teacher"),
    ]:
        if field == "teacher":
            (call.teacher / "model.safetensors").write_text("other weights")
        with pytest.raises(InputError) as caught:
            quickstart(other, say=lambda text: None)
        assert {"teacher": "teacher.sha256"}.get(field, field) in [problem.record for problem in caught.value.problems]
        assert "--overwrite" in caught.value.problems[0].remedy
        assert (call.out / NAME).read_bytes() == before
    (call.out / "mine.txt").write_text("kept")
    called()
    quickstart(other, overwrite=True, say=lambda text: None)
    assert verbs(called()).count("predict") == len(ROWS)
    assert (call.out / "mine.txt").read_text() == "kept"


def test_a_newer_version_with_other_recipes_is_said_in_one_sentence(call, monkeypatch, tmp_path):
    quickstart(call, say=lambda text: None)
    newer = shutil.copytree(RECIPE.parent, tmp_path / "newer")
    base = newer / "quickstart_clkd.yaml"
    base.write_text(base.read_text().replace("schedule: cosine", "schedule: linear"))
    monkeypatch.setattr("drivedistill.quickstart.plan.RECIPE", newer / RECIPE.name)
    with pytest.raises(InputError) as caught:
        quickstart(call, say=lambda text: None)
    assert [problem.record for problem in caught.value.problems] == ["recipes"]


def test_somebody_elses_folder_is_left_alone(call):
    call.out.mkdir()
    (call.out / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"thesis\.tex"):
            quickstart(call, overwrite=overwrite, say=lambda text: None)
    assert [path.name for path in call.out.iterdir()] == ["thesis.tex"]


def test_runs_of_other_data_are_not_gone_on_with(call, world):
    quickstart(call, say=lambda text: None)
    world.manifest = {"data_hash": "bb"}
    with pytest.raises(InputError, match="data of bb"):
        quickstart(call, say=lambda text: None)


def test_a_full_disk_is_said_in_words(call, world):
    world.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RunError, match="is full; free some space; the same command goes on"):
        quickstart(call, say=lambda text: None)


def test_too_small_a_disk_is_said_before_the_work(call, called, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=10**7)
    monkeypatch.setattr("drivedistill.quickstart.run.shutil.disk_usage", lambda path: full)
    with pytest.raises(InputError, match="of free disk"):
        quickstart(call, say=lambda text: None)
    assert not called()


def test_a_signal_while_data_are_made_is_an_interruption(call, world):
    world.error = Stopped(2)
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        quickstart(call, say=lambda text: None)
    assert caught.value.number == 2
    assert json.loads((call.out / NAME).read_text())["settings"]["seed"] == 0, "the folder is known as ours"


def test_a_dry_run_shows_every_command_and_writes_nothing(call):
    text = "\n".join(describe(call))
    assert not call.out.exists()
    for verb in ("world", "cache", "train", "distill", "predict", "score", "probe", "experts", "bench", "report"):
        assert f"drivedistill {verb} " in text
    assert text.count("drivedistill distill") == 4
    assert text.count("drivedistill train") == 2
