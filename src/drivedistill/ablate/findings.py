"""What keeps a planned table from being run: missing data, a folder of somebody else, runs that were made otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from drivedistill.ablate.card import Table
from drivedistill.ablate.plan import PlannedRun
from drivedistill.problems import Problem, missing_file
from drivedistill.recipe import changed_fields, load_recipe
from drivedistill.yaml_tree import flat, read_tree


def before_locking(runs: Sequence[PlannedRun], out: Path) -> list[Problem]:
    """What can be said before anything is written to OUT: data folders that are missing, an OUT that is no table's."""
    return [*_missing_data(runs), *_no_table(out)]


def other_plan(table: Table, runs: Sequence[PlannedRun], out: Path) -> list[Problem]:
    """What lies in OUT and does not fit the plan; OUT must be locked if the runs are to be started.

    A run was made by another recipe, or by runs that are gone; answers were scored in another way.
    """
    problems = [*_other_scoring(table, out)]
    for run in runs:
        if run.begun:
            again = f"choose another --out, or remove {run.folder}"
            before = load_recipe(run.folder / "recipe.yaml")
            for field, (old, new) in changed_fields(before, run.recipe).items():
                problems.append(Problem(str(run.folder), field, f"{old!r} as when the run began", repr(new), again))
            if others := run.made_otherwise():
                found = f"{', '.join(others)} gone, or made again since"
                problems.append(Problem(str(run.folder), "", "the runs that it was made from", found, again))
    return problems


def _missing_data(runs: Sequence[PlannedRun]) -> Iterator[Problem]:
    for root in dict.fromkeys(source.root for run in runs for source in run.recipe.data.sources):
        if not root.is_dir():
            yield missing_file(root, "a data folder", "write or download the data first; see the recipe's comment")


def _no_table(out: Path) -> Iterator[Problem]:
    """Locks and temporary files, whose names begin with a dot, make no folder somebody else's."""
    if out.exists() and not out.is_dir():
        yield Problem(str(out), "", "a folder for the table", "a file", "choose another --out")
    elif out.is_dir() and not (out / "table.yaml").is_file():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            found = f"a folder that is no table's (no table.yaml, but {', '.join(others[:3])})"
            yield Problem(str(out), "", "an empty folder, or an earlier table", found, "choose another --out")


def _other_scoring(table: Table, out: Path) -> Iterator[Problem]:
    """Answers that lie in OUT were asked for in the way that `table.yaml` says."""
    path = out / "table.yaml"
    if not path.is_file():
        return
    before, now = (flat(tree) for tree in (read_tree(path).get("score") or {}, table.score.model_dump(mode="json")))
    for field in sorted(before.keys() | now.keys()):
        if before.get(field) != now.get(field):
            expected = f"{before.get(field)!r} as when the table began"
            remedy = f"choose another --out; or remove {path} and, of every run, predictions/ and results.json"
            yield Problem(str(path), f"score.{field}", expected, repr(now.get(field)), remedy)
