"""The plan: who runs with what, after whom, and what may lie in OUT already."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_table import TABLE, begin, finish, planned

from drivedistill.ablate.card import Scoring
from drivedistill.ablate.findings import before_locking, other_plan
from drivedistill.ablate.plan import choose, commands, write_plan
from drivedistill.problems import InputError
from drivedistill.recipe import load_recipe


def refused(table, runs, out) -> dict[str, str]:
    """Record -> what was expected."""
    return {problem.record: problem.expected for problem in other_plan(table, list(runs.values()), out)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "a").mkdir(parents=True)
    return tmp_path


def test_rows_times_seeds_first_seeds_first(tmp_path):
    _, runs = planned(tmp_path)
    assert list(runs) == ["teacher/seed-5", "student/seed-0", "long/seed-0", "student/seed-1", "long/seed-1"]
    assert runs["student/seed-1"].needs == ("teacher/seed-5",)


def test_a_recipe_is_the_base_with_the_rows_changes_its_seed_and_the_folders_it_uses(tmp_path):
    _, runs = planned(tmp_path)
    recipe = runs["long/seed-1"].recipe
    assert recipe.teacher is not None
    assert recipe.teacher.path == (tmp_path / "out/teacher/seed-5").as_posix()
    assert (recipe.seed, recipe.train.steps, recipe.name, recipe.about) == (1, 9, "some.long", "#3")
    assert runs["teacher/seed-5"].recipe.teacher is None
    assert runs["student/seed-1"].recipe.train.steps is None


@settings(max_examples=15)
@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), st.integers(0, 9)), min_size=1,
                max_size=6), st.randoms(use_true_random=False))  # fmt: skip
def test_nobody_waits_for_a_later_one(tmp_path_factory, drawn, chance):
    folder = tmp_path_factory.getbasetemp() / "drawn"
    rows = [
        {"name": f"r{i}", "seeds": seeds, "uses": {"teacher.path": f"r{used % i}"} if i and used else {}}
        for i, (seeds, used) in enumerate(drawn)
    ]
    chance.shuffle(rows)
    _, runs = planned(folder, {**TABLE, "rows": rows, "differences": []})
    names = list(runs)
    assert sorted(names) == sorted(f"{row['name']}/seed-{seed}" for row in rows for seed in row["seeds"])
    assert all(names.index(need) < names.index(name) for name, run in runs.items() for need in run.needs)


def test_problems_of_all_rows_are_said_at_once_and_once(tmp_path):
    rows = [{"name": "a", "set": ["train.setps=1"]}, {"name": "b", "set": ["mining.pool=pond", "nonsense"]}]
    with pytest.raises(InputError) as caught:
        planned(tmp_path, {**TABLE, "rows": rows, "differences": []})
    problems = caught.value.problems
    assert [problem.record for problem in problems] == ["train.setps", "nonsense", "mining.pool"]
    assert all("rows." in problem.file for problem in problems)


def test_a_split_that_no_source_has_is_named_once_per_row(tmp_path):
    by_file = ["data.sources.0.split_by=file", "data.sources.0.files={train: train, exam: test}"]
    rows = [{"name": "a"}, {"name": "b", "set": by_file}]
    changes = {"rows": rows, "differences": [], "score": {**TABLE["score"], "splits": ["test", "exam"]}}
    with pytest.raises(InputError) as caught:
        planned(tmp_path, {**TABLE, **changes})
    assert [(problem.expected, problem.found) for problem in caught.value.problems] == [
        ("a split of rows.a: train, val, test", "'exam'"), ("a split of rows.b: train, exam", "'test'"),
    ]  # fmt: skip


def test_commands_learn_answer_every_split_and_score(tmp_path):
    _, runs = planned(tmp_path)
    run = runs["student/seed-0"]
    scoring = Scoring(splits=["val", "test"], limit=7, meteor=False)
    lines = [command[3:] for command in commands(run, scoring)]
    folder = str(run.folder)
    assert lines[0] == ["distill", f"{folder}/recipe.yaml", "--out", folder, "--resume"]
    assert [line[:4] for line in lines[1:3]] == [["predict", folder, "--split", name] for name in ("val", "test")]
    assert lines[1][-2:] == ["--limit-per-set", "7"]
    assert lines[3][:3] == [
        "score",
        f"{folder}/predictions/val-greedy-7.jsonl",
        f"{folder}/predictions/test-greedy-7.jsonl",
    ]
    assert lines[3][-1] == "--no-meteor"
    assert commands(runs["teacher/seed-5"], scoring)[0][3] == "train"


def test_runs_that_want_a_cache_share_one_of_the_table_and_fill_it_before_they_learn(tmp_path):
    rows = [TABLE["rows"][0], {**TABLE["rows"][1], "set": ["data.vision_cache=elsewhere"]}]
    table, runs = planned(tmp_path, {**TABLE, "rows": rows, "differences": []})
    run = runs["student/seed-1"]
    assert run.recipe.data.vision_cache == tmp_path / "out/cache"
    assert runs["teacher/seed-5"].recipe.data.vision_cache is None
    first, second, *_ = commands(run, table.score)
    assert first[3:] == ["cache", f"{run.folder}/recipe.yaml", "--wait"]
    assert second[3] == "distill"
    assert commands(runs["teacher/seed-5"], table.score)[0][3] == "train"


def test_the_teachers_words_lie_in_the_tables_cache_too(tmp_path):
    rows = [TABLE["rows"][0], {**TABLE["rows"][1], "set": ["distill.teacher_cache=elsewhere"]}]
    table, runs = planned(tmp_path, {**TABLE, "rows": rows, "differences": []})
    run = runs["student/seed-1"]
    assert run.recipe.distill.teacher_cache == tmp_path / "out/cache"
    assert [line[3] for line in commands(run, table.score)[:2]] == ["cache", "distill"]
    begin(run, finished="2026-01-01")
    assert [command[3] for command in commands(run, table.score)] == ["predict", "score"]


def test_a_finished_training_is_not_repeated(tmp_path):
    table, runs = planned(tmp_path)
    run = runs["student/seed-0"]
    begin(run)
    assert commands(run, table.score)[0][3] == "distill"
    begin(run, finished="2026-01-01")
    assert [command[3] for command in commands(run, table.score)] == ["predict", "score"]


def test_states(tmp_path):
    table, runs = planned(tmp_path)
    run = runs["student/seed-0"]
    begin(runs["teacher/seed-5"], "2026-01-01")
    assert run.state(table.score) == "new"
    begin(run, finished="2026-01-01")
    assert run.state(table.score) == "begun"
    finish(table, run, ["Yes now."] * 2)
    assert run.state(table.score) == "done"
    assert run.state(table.score.model_copy(update={"limit": 3})) == "begun"
    _, others = planned(tmp_path, {**TABLE, "rows": [*TABLE["rows"][:1], {**TABLE["rows"][1], "set": ["train.steps=3"]}],
                                   "differences": []})  # fmt: skip
    assert others["student/seed-0"].state(table.score) == "changed"


def test_rows_are_chosen_with_what_they_use_unless_that_is_done(tmp_path):
    table, runs = planned(tmp_path)
    everything = list(runs.values())
    assert [run.name for run in choose(everything, ["long"], table.score)] == [
        "teacher/seed-5",
        "long/seed-0",
        "long/seed-1",
    ]
    finish(table, runs["teacher/seed-5"], ["Yes now."])
    assert [run.name for run in choose(everything, ["long"], table.score)] == ["long/seed-0", "long/seed-1"]
    finish(table, runs["long/seed-0"], ["Yes now."])
    shutil.rmtree(runs["teacher/seed-5"].folder)
    assert [run.name for run in choose(everything, ["long"], table.score)] == [
        "teacher/seed-5",
        "long/seed-0",
        "long/seed-1",
    ]
    with pytest.raises(InputError, match="'short'"):
        choose(everything, ["long", "short"], table.score)


def test_plan_is_written_and_accepted_again(here):
    table, runs = planned(here)
    write_plan(table, list(runs.values()), here / "out")
    assert load_recipe(here / "out/long/seed-1/recipe.yaml") == runs["long/seed-1"].recipe
    begin(runs["teacher/seed-5"], "2026-01-01")
    begin(runs["long/seed-1"])
    assert not refused(table, runs, here / "out")


def test_another_plan_is_refused_with_its_fields(here):
    table, runs = planned(here)
    write_plan(table, list(runs.values()), here / "out")
    begin(runs["teacher/seed-5"], "2026-01-01")
    begin(runs["long/seed-0"])
    rows = [TABLE["rows"][0], TABLE["rows"][1], {**TABLE["rows"][2], "set": ["train.steps=10", "train.keep=1"]}]
    other, changed = planned(here, {**TABLE, "rows": rows, "score": {**TABLE["score"], "limit": 4}})
    assert refused(other, changed, here / "out") == {
        "train.steps": "9 as when the run began", "score.limit": "None as when the table began",
    }  # fmt: skip
    write_plan(table, list(changed.values()), here / "out")
    assert load_recipe(here / "out/long/seed-0/recipe.yaml").train.steps == 9
    assert load_recipe(here / "out/long/seed-1/recipe.yaml").train.steps == 10, "it has not begun"


def test_a_run_whose_teacher_is_gone_or_was_made_again_is_refused(here):
    table, runs = planned(here)
    teacher, student = runs["teacher/seed-5"], runs["student/seed-0"]
    begin(student)
    assert refused(table, runs, here / "out") == {"": "the runs that it was made from"}
    begin(teacher, "2026-01-01")
    assert not refused(table, runs, here / "out")
    shutil.rmtree(student.folder)
    student.folder.mkdir()
    student.remember_needs()
    finish(table, student, ["Yes now."])
    assert student.state(table.score) == "done"
    begin(teacher, "2026-01-02")
    student.remember_needs()
    assert student.state(table.score) == "changed", "it remembers with which it began"
    assert refused(table, runs, here / "out") == {"": "the runs that it was made from"}


def test_missing_data_are_found_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, runs = planned(tmp_path)
    (problem,) = before_locking(list(runs.values()), tmp_path / "out")
    assert (problem.file, problem.expected) == ("data/a", "a data folder")


def test_a_folder_that_is_no_tables_is_refused(here):
    table, runs = planned(here)

    def found(out) -> list[str]:
        return [problem.found for problem in before_locking(list(runs.values()), out)]

    (here / "mine").mkdir()
    (here / "mine/.lock").touch()
    assert not found(here / "mine")
    (here / "mine/letters").touch()
    assert found(here / "mine") == ["a folder that is no table's (no table.yaml, but letters)"]
    assert found(here / "mine/letters") == ["a file"]
    write_plan(table, list(runs.values()), here / "out")
    assert not found(here / "out")
