"""The table: figures that can be checked by hand, intervals where they mean something, and what is missing."""

from __future__ import annotations

import csv
import json
import statistics

import pytest
from some_table import TABLE, begin, finish, log, planned

from drivedistill.ablate.jobs import Ending
from drivedistill.ablate.results import tabulate
from drivedistill.ablate.table import csv_text, markdown
from drivedistill.records import Prediction, read_jsonl, write_json, write_jsonl

RIGHT, WRONG = "Yes now.", "No."


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Student: 1 and 2 of 4 right; long: 3 and 4 of 4 right; the teacher failed."""
    rows = [TABLE["rows"][0], {**TABLE["rows"][1], "published": {"regular": {"BLEU-4": 47.5}}}, TABLE["rows"][2]]
    table, runs = planned(tmp_path_factory.mktemp("found"), {**TABLE, "rows": rows})
    begin(runs["teacher/seed-5"], "2026-01-01")
    for name, right in (("student/seed-0", 1), ("student/seed-1", 2), ("long/seed-0", 3), ("long/seed-1", 4)):
        seed = int(name[-1])
        finish(
            table, runs[name], [RIGHT] * right + [WRONG] * (4 - right), params_m=0.5 + seed, seconds=10.0 * (1 + seed)
        )
    log(
        runs["long/seed-0"],
        {"step": 1, "alpha": 1.0, "mined": {"a": 1}},
        {"step": 2, "alpha": 0.5},
        {"step": 3, "loss": 1},
    )
    with (runs["long/seed-0"].folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "alp')
    return tabulate(table, list(runs.values()), {"teacher/seed-5": Ending(code=2)})


def cell(found, row, regime, column):
    places = next(item for item in found["rows"] if item["name"] == row)["places"]
    return next(place for place in places if place["regime"] == regime)["figures"][column]


def test_a_figure_is_the_mean_over_seeds_with_its_standard_deviation(found):
    exact = cell(found, "student", "corner", "Exact match")
    assert (exact["mean"], exact["n_seeds"], exact["n"]) == (37.5, 2, 4)
    assert exact["sd"] == pytest.approx(statistics.stdev([25, 50]), abs=1e-4)
    assert next(row for row in found["rows"] if row["name"] == "student")["cost"] == {
        "params_m": 1.0, "activated_m": None, "trainable_m": None, "seconds": 15.0,
    }  # fmt: skip


def test_regular_comes_before_corner(found):
    assert [place["regime"] for place in found["rows"][1]["places"]] == ["regular", "corner"]


def test_differences_are_paired_by_seed_and_question(found):
    assert [(item["a"], item["b"], item["regime"], item["seeds"]) for item in found["differences"]] == [
        ("long", "student", "regular", [0, 1]), ("long", "student", "corner", [0, 1]),
    ]  # fmt: skip
    figures = found["differences"][0]["figures"]
    exact, bleu = figures["Exact match"], figures["BLEU-4"]
    assert (exact["mean"], exact["sd"]) == (50.0, 0.0)
    assert exact["low"] == exact["high"] == 50.0, "one question of every scene has changed, with both seeds"
    assert bleu["low"] < bleu["mean"] < bleu["high"], "computed again on every draw"
    assert {(each["n"], each["n_scenes"], each["verdict"]) for each in figures.values()} == {(4, 2, "too few scenes")}
    by_hand = cell(found, "long", "regular", "BLEU-4")["mean"] - cell(found, "student", "regular", "BLEU-4")["mean"]
    assert bleu["mean"] == pytest.approx(by_hand, abs=1e-3)


def test_only_common_seeds_are_paired(tmp_path):
    table, runs = planned(tmp_path)
    begin(runs["teacher/seed-5"], "2026-01-01")
    for name in ("student/seed-0", "long/seed-0", "long/seed-1"):
        finish(table, runs[name], [RIGHT, WRONG])
    assert {tuple(item["seeds"]) for item in tabulate(table, list(runs.values()), {})["differences"]} == {(0,)}


def test_one_seed_has_its_interval_over_scenes(tmp_path):
    table, runs = planned(tmp_path)
    begin(runs["teacher/seed-5"], "2026-01-01")
    for name in ("student/seed-0", "long/seed-0", "long/seed-1"):
        finish(table, runs[name], [RIGHT, WRONG])
    found = tabulate(table, list(runs.values()), {})
    one, two = (cell(found, row, "regular", "Exact match") for row in ("student", "long"))
    assert (one["mean"], one["sd"], one["low"], one["high"]) == (50.0, None, 0.0, 100.0)
    assert (two["mean"], two["sd"], two["low"], two["high"]) == (50.0, 0.0, None, None)


def test_what_is_no_sum_over_answers_has_its_spread_and_no_verdict(tmp_path):
    table, runs = planned(tmp_path, {**TABLE, "columns": ["Exact match", "Judge"]})
    begin(runs["teacher/seed-5"], "2026-01-01")
    for name, rating in (("student/seed-0", 40), ("student/seed-1", 50), ("long/seed-0", 45), ("long/seed-1", 65)):
        finish(table, runs[name], [RIGHT, WRONG])
        results = runs[name].folder / "results.json"
        scores = json.loads(results.read_text())
        exact = next(row for row in scores if row["name"] == "exact_match" and row["regime"] == "regular")
        write_json(results, [*scores, {**exact, "name": "judge", "value": rating, "low": None, "high": None}])
    found = tabulate(table, list(runs.values()), {})
    judge = found["differences"][0]["figures"]["Judge"]
    assert (judge["mean"], judge["low"], judge["verdict"]) == (10.0, None, None)
    assert judge["sd"] == pytest.approx(statistics.stdev([5, 15]), abs=1e-4)
    page = markdown(found)
    assert "+10.00 ± 7.07" in page
    assert "Differences with ± or alone are no function of sums" in page


def test_answers_that_only_some_runs_gave_are_counted(tmp_path):
    table, runs = planned(tmp_path)
    begin(runs["teacher/seed-5"], "2026-01-01")
    finish(table, runs["student/seed-0"], [RIGHT, WRONG, RIGHT])
    finish(table, runs["long/seed-0"], [RIGHT, WRONG])
    found = tabulate(table, list(runs.values()), {})
    assert [(item["left_out"], item["figures"]["Exact match"]["n"]) for item in found["differences"]] == [
        ((0, 1), 2)
    ] * 2
    assert "2 answers are in no difference" in markdown(found)


def keep(table, run, regime):
    """Remove a run's answers to the other regimes."""
    for file in run.predictions(table.score).values():
        write_jsonl(file, [row for row in read_jsonl(file, Prediction) if row.regime == regime])


@pytest.mark.parametrize(
    ("kept", "seeds"),
    [
        ({"long/seed-1": "regular"}, {"regular": [0, 1], "corner": [0]}),
        ({"long/seed-0": "corner", "student/seed-0": "corner"}, {"regular": [1], "corner": [0, 1]}),
        ({"long/seed-1": "regular", "student/seed-0": "regular"}, {"regular": [0, 1]}),
    ],
)
def test_a_seed_that_lacks_a_set_leaves_its_pair(tmp_path, kept, seeds):
    table, runs = planned(tmp_path)
    begin(runs["teacher/seed-5"], "2026-01-01")
    for name in ("student/seed-0", "student/seed-1", "long/seed-0", "long/seed-1"):
        finish(table, runs[name], [RIGHT if name.endswith("1") else WRONG, WRONG] if "long" in name else [WRONG] * 2)
    for name, regime in kept.items():
        keep(table, runs[name], regime)
    found = tabulate(table, list(runs.values()), {})
    assert {item["regime"]: item["seeds"] for item in found["differences"]} == seeds
    for item in found["differences"]:
        right = sum(seed == 1 for seed in item["seeds"]) / len(item["seeds"])
        assert item["figures"]["Exact match"]["mean"] == pytest.approx(50 * right)
        assert item["figures"]["Exact match"]["n_seeds"] == len(item["seeds"])
        without = [seed for seed in (0, 1) if seed not in item["seeds"]]
        said = f"long - student, {item['regime']} {item['dataset']} test: without seed {without}".replace("[", "")
        assert (said.replace("]", "") in markdown(found)) == bool(without)


def test_diagnostics_are_the_last_that_were_logged(found):
    run = found["rows"][2]["runs"][0]
    assert run["diagnostics"] == {"alpha": {"step": 2, "value": 0.5}, "mined": {"step": 1, "value": {"a": 1}}}


def test_page_shows_figures_the_papers_and_what_is_missing(found):
    page = markdown(found)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    bleu = cell(found, "student", "regular", "BLEU-4")
    assert ["#2", "R drivelm", f"{bleu['mean']:.2f} ± {bleu['sd']:.2f} [47.5]"] == next(
        line[:3] for line in lines if line[0] == "#2"
    )
    assert [line[-1] for line in lines if line[0] in ("Row", "#2")] == ["runs", "2", "seeds", "0, 1"]
    heads = [line for line in lines if line[0].endswith("seeds)") or line[0] in ("long -", "student (2)")]
    assert heads[0] == ["A - B (seeds)", "Metric", "R drivelm", "C coda_lm"]
    assert [line[:2] for line in heads[1:]] == [["long -", "BLEU-4"], ["student (2)", "ROUGE-L"]]
    assert ["", "C coda_lm"] in [line[:2] for line in lines]
    assert "+50.00 [+50.00, +50.00] ?" in page
    assert "* teacher, seed 5: failed (exit code 2)" in page
    assert "?: no verdict, fewer than 30 scenes." in page
    assert "With one seed" not in page


def test_spreadsheet_has_one_figure_per_line(found):
    lines = list(csv.DictReader(csv_text(found).splitlines()))
    chosen = [line for line in lines if line["row"] == "long" and line["column"] == "Exact match"]
    assert [(line["minus"], line["regime"], float(line["mean"]), line["low"]) for line in chosen] == [
        ("", "regular", 87.5, ""), ("", "corner", 87.5, ""), ("student", "regular", 50.0, "50.0"),
        ("student", "corner", 50.0, "50.0"),
    ]  # fmt: skip
    assert [(line["n_scenes"], line["verdict"]) for line in chosen] == [("", "")] * 2 + [("2", "too few scenes")] * 2
    published = {
        line["regime"]: line["published"] for line in lines if line["row"] == "student" and line["column"] == "BLEU-4"
    }
    assert published == {"regular": "47.5", "corner": ""}


def test_a_table_of_which_nothing_was_run_says_so(tmp_path):
    table, runs = planned(tmp_path)
    begin(runs["teacher/seed-5"])
    found = tabulate(table, list(runs.values()), {"long/seed-0": Ending(code=2, waited_for="teacher/seed-5")})
    page = markdown(found)
    assert "* teacher, seed 5: not finished" in page
    assert "* #3, seed 0: not run: teacher/seed-5 failed" in page
    assert "* #2, seed 0: not run" in page
    assert "|" not in page


def test_columns_by_capability_have_figures_and_differences(tmp_path):
    columns = ["Perception", "Reasoning", "Planning", "Mean of three"]
    table, runs = planned(tmp_path, {**TABLE, "columns": columns})
    begin(runs["teacher/seed-5"], "2026-01-01")
    tasks = ("perception", "prediction", "behavior", "planning")
    for name, answers in (
        ("student/seed-0", [RIGHT, WRONG, WRONG, WRONG]),
        ("long/seed-0", [RIGHT, RIGHT, WRONG, RIGHT]),
    ):
        finish(table, runs[name], answers * 2, tasks=tasks)
    found = tabulate(table, list(runs.values()), {})
    assert [cell(found, "long", "regular", column)["mean"] for column in columns] == [
        100,
        50,
        100,
        pytest.approx(83.3333),
    ]
    assert [cell(found, "long", "regular", column)["n"] for column in columns[:3]] == [2, 4, 2]
    figures = found["differences"][0]["figures"]
    assert [figures[column]["mean"] for column in columns] == [0, 50, 100, pytest.approx(50)]
    assert [figures[column]["n"] for column in columns[:3]] == [2, 4, 2]
    assert "Questions: R drivelm test 4" in markdown(found)


def test_what_the_paper_says_of_models_that_are_not_run_stands_in_the_table(tmp_path):
    theirs = {"name": "big", "label": "Big", "run": False, "published": {"regular": {"Exact match": 46.17}},
              "published_cost": {"Memory, GB": 171.6}}  # fmt: skip
    table, runs = planned(tmp_path, {**TABLE, "rows": [*TABLE["rows"], theirs], "published_by": "judged by a model"})
    assert not any(name.startswith("big") for name in runs)
    found = tabulate(table, list(runs.values()), {})
    page = markdown(found)
    assert "[46.17]" in page and "171.6" in page.partition("What they cost in the paper")[2]
    assert "the paper's, judged by a model." in page
    assert not any("Big" in line for line in page.partition("Not in the table")[2].splitlines())
