"""The table recipe: what is wrong with it is said at once, and completely."""

from __future__ import annotations

from pathlib import Path

import pytest
from some_table import BASE, TABLE, write

from drivedistill.ablate.card import load_table
from drivedistill.ablate.plan import plan
from drivedistill.problems import InputError

TABLES = sorted((Path(__file__).parents[3] / "recipes" / "tables").glob("*.yaml"))


def findings(folder: Path, **changes) -> dict[str, str]:
    """Record -> what was found."""
    with pytest.raises(InputError) as caught:
        load_table(write(folder, {**TABLE, **changes}))
    return {problem.record: problem.found for problem in caught.value.problems}


def rows(*rows) -> list[dict]:
    return [{"name": name, "uses": {"teacher.path": used} if used else {}} for name, used in rows]


def test_defaults(tmp_path):
    table = load_table(write(tmp_path, {"name": "t", "about": "x", "base": "base.yaml", "rows": [{"name": "a"}]}))
    assert (table.seeds, table.run, table.score.splits, table.score.limit) == ([0], True, ["test"], None)
    assert table.columns == ["BLEU-4", "METEOR", "ROUGE-L", "Avg", "Exact match"]


def test_a_run_uses_the_same_seed_or_the_first(tmp_path):
    table = load_table(write(tmp_path, TABLE))
    assert table.used_seed("teacher", 1) == 5
    assert table.used_seed("student", 1) == 1


@pytest.mark.parametrize(
    ("changes", "record", "found"),
    [
        ({"rows": rows(("a", ""), ("a", ""))}, "rows.a", "the name a second time"),
        ({"rows": rows(("cache", ""))}, "rows.cache", "that of a folder which all rows share"),
        ({"rows": rows(("a", "b"))}, "rows.a.uses.teacher.path", "'b'"),
        ({"rows": rows(("a", "c"), ("b", "a"), ("c", "b"))}, "rows", "a uses c uses b uses a"),
        ({"rows": rows(("a", "a"))}, "rows", "a uses a"),
        ({"rows": [*rows(("b", "a")), {"name": "a", "run": False}]}, "rows.b.uses.teacher.path", "'a'"),
        ({"base": None}, "rows.student", "neither `base` nor `recipe`"),
        ({"seeds": [1, 1]}, "seeds", "[1, 1]"),
        ({"rows": [{"name": "a", "seeds": [2, 2]}]}, "rows.a.seeds", "[2, 2]"),
        ({"columns": ["BLEU-5"]}, "columns", "'BLEU-5'"),
        ({"columns": ["Avg"]}, "columns", "'Avg' without METEOR"),
        ({"score": {"tokenizer": "approximate"}}, "score.meteor", "true, with the approximate tokenizer"),
        ({"score": {"decode": "beam-1"}}, "score.decode", "'beam-1'"),
        ({"rows": [{"name": "a", "published": {"corner": {"CIDEr": 1}}}]}, "rows.a.published.corner", "'CIDEr'"),
        ({"differences": [["long", "nobody"]]}, "differences [long, nobody]", "nobody"),
        ({"differences": [["student", "teacher"]]}, "differences [student, teacher]", "none"),
        ({"run": False}, "needs", "nothing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(tmp_path, changes, record, found):
    if "rows" in changes:
        changes = {"differences": [], **changes}
    said = findings(tmp_path, **changes)
    if found.startswith("a uses c"):  # the circle may begin anywhere
        assert sorted(said["rows"].split(" uses ")[1:]) == ["a", "b", "c"]
    else:
        assert said[record] == found


def test_everything_is_said_at_once(tmp_path):
    said = findings(tmp_path, seeds=[1, 1], columns=["BLEU-5"], differences=[["x", "y"]], run=False)
    assert said.keys() == {"seeds", "columns", "differences [x, y]", "needs"}


def test_an_ordinary_recipe_is_no_table(tmp_path):
    with pytest.raises(InputError) as caught:
        load_table(write(tmp_path, BASE))
    (problem,) = caught.value.problems
    assert (problem.found, problem.remedy) == ("an ordinary recipe", "use `drivedistill train` or `distill`")


@pytest.mark.parametrize("changes", [{"colums": []}, {"rows": []}, {"seeds": [-1]}, {"rows": [{"name": "../x"}]}])
def test_unknown_keys_and_bad_values_are_refused(tmp_path, changes):
    assert findings(tmp_path, **changes)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_shipped_table_can_be_planned(path):
    table = load_table(path)
    assert table.name == path.stem
    runs = plan(table, path, Path("out"))
    assert len(runs) == sum(len(table.seeds_of(row)) for row in table.rows)
    assert len({run.recipe.model_dump_json(exclude={"name", "about"}) for run in runs}) == len(runs), "two equal rows"


def test_published_averages_are_means():
    """CLKD Table II; row 5's regular average is 54.47 and printed as 54.45."""
    table = load_table(next(path for path in TABLES if path.stem == "clkd_table_2"))
    checked = [figures for row in table.rows for figures in row.published.values()]
    assert len(checked) == 11
    for figures in checked:
        assert figures["Avg"] == pytest.approx(
            sum(figures[name] for name in ("BLEU-4", "METEOR", "ROUGE-L")) / 3, abs=0.02
        )
