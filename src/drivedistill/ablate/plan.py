"""What has to be run for a table: every row's recipe for every seed, in an order in which nobody waits for a later one.

OUT/table.yaml  table.md  table.csv  table.json  cache/ (features and words, where a recipe wants a cache)
OUT/ROW/seed-S/    an ordinary run, with predictions/, results.json, log.txt and uses.json (the runs that it was made from)
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from drivedistill.ablate.card import CACHE, Scoring, Table, TableRow
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe, changed_fields, load_recipe, parse_recipe, save_recipe
from drivedistill.records import write_json, write_text
from drivedistill.yaml_tree import read_tree

State = Literal["new", "begun", "done", "changed"]
CLI = [sys.executable, "-m", "drivedistill.cli"]


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed."""

    row: str
    seed: int
    folder: Path
    recipe: Recipe
    needs: tuple[str, ...]
    """Names of the runs that must be done first."""

    @property
    def name(self) -> str:
        """`clkd/seed-0`; also the folder's place below OUT."""
        return run_name(self.row, self.seed)

    @property
    def learnt(self) -> bool:
        """Whether its training is over."""
        return bool(self.facts().get("finished"))

    @property
    def begun(self) -> bool:
        """Whether its training has started."""
        return (self.folder / "run.json").is_file()

    def facts(self) -> dict[str, Any]:
        """What `run.json` says; empty before the run has begun."""
        return _object(self.folder / "run.json")

    def remember_needs(self) -> None:
        """Write down when the runs that it uses were finished, before it begins."""
        if self.needs and not self.begun:
            write_json(self.folder / "uses.json", {name: self._finished(name) for name in self.needs})

    def made_otherwise(self) -> list[str]:
        """The runs that it uses and that are gone, or were made again, since it began."""
        used = _object(self.folder / "uses.json")
        now = {name: self._finished(name) for name in self.needs}
        return [name for name, time in now.items() if time is None or used.get(name, time) != time]

    def _finished(self, name: str) -> str | None:
        found: str | None = _object(self.folder.parents[1] / name / "run.json").get("finished")
        return found

    def predictions(self, scoring: Scoring) -> dict[str, Path]:
        """Split -> file of the answers."""
        limit = f"-{scoring.limit}" if scoring.limit else ""
        return {
            split: self.folder / "predictions" / f"{split}-{scoring.decode}{limit}.jsonl" for split in scoring.splits
        }

    def state(self, scoring: Scoring) -> State:
        """`new`, `begun`, `done` (scored), or `changed`: begun by another recipe than is planned now, or with other runs."""
        if not self.begun:
            return "new"
        if changed_fields(load_recipe(self.folder / "recipe.yaml"), self.recipe) or self.made_otherwise():
            return "changed"
        files = [self.folder / "results.json", *self.predictions(scoring).values()]
        return "done" if all(file.is_file() for file in files) else "begun"


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def run_name(row: str, seed: int) -> str:
    """Name of a run, and its folder below OUT."""
    return f"{row}/seed-{seed}"


def plan(table: Table, path: Path, out: Path) -> list[PlannedRun]:
    """Every run of the table, first seeds first, each after those that it uses.

    Args:
        table: The table.
        path: Its file; bases are relative to it.
        out: Folder of the table.

    Raises:
        InputError: A base or a row's change cannot be used; all findings of all rows, each once.
    """
    runs: list[PlannedRun] = []
    problems: dict[Problem, None] = {}
    for row in table.rows:
        for seed in table.seeds_of(row):
            try:
                runs.append(_planned(table, path, out, row, seed))
                problems |= dict.fromkeys(_missing_splits(table, path, runs[-1]))
            except InputError as error:
                problems |= dict.fromkeys(error.problems)
    if problems:
        raise InputError(problems)
    position = {run.name: table.seeds_of(table.row(run.row)).index(run.seed) for run in runs}
    waiting = sorted(runs, key=lambda run: position[run.name])
    ordered: list[PlannedRun] = []
    while waiting:  # `load_table` has refused circles
        placed = {run.name for run in ordered}
        following = next(run for run in waiting if placed.issuperset(run.needs))
        waiting.remove(following)
        ordered.append(following)
    return ordered


def choose(runs: Sequence[PlannedRun], rows: Sequence[str], scoring: Scoring) -> list[PlannedRun]:
    """The runs of some rows and, where they are not done, of the rows that they use.

    Raises:
        InputError: There is no such row.
    """
    known = dict.fromkeys(run.row for run in runs)
    problems = [
        Problem("command line", "--rows", f"rows of the table: {', '.join(known)}", repr(name), "correct the name")
        for name in rows
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    wanted = {run.name for run in runs if run.row in rows}
    todo = {run.name for run in runs if run.state(scoring) != "done"}
    for run in reversed(runs):  # what is used comes before who uses it
        if run.name in wanted & todo:
            wanted |= todo & set(run.needs)
    return [run for run in runs if run.name in wanted]


def commands(run: PlannedRun, scoring: Scoring) -> list[list[str]]:
    """The command lines that are still needed: fill the cache, learn, answer every split, score. Each goes on where it
    stopped."""
    wanted = run.recipe.data.vision_cache or run.recipe.distill.teacher_cache
    cached = run.learnt or wanted is None
    return [*([] if cached else [cache_command(run)]), *learning(run), *answering(run, scoring)]


def cache_command(run: PlannedRun) -> list[str]:
    """Fill the caches; runs at the same time share it, so it waits for another call."""
    return [*CLI, "cache", str(run.folder / "recipe.yaml"), "--wait"]


def learning(run: PlannedRun) -> list[list[str]]:
    """Train, unless it is done: that would write `model/` again, and answers must be younger than it."""
    verb = "distill" if run.recipe.teacher else "train"
    line = [*CLI, verb, str(run.folder / "recipe.yaml"), "--out", str(run.folder), "--resume"]
    return [] if run.learnt else [line]


def answering(run: PlannedRun, scoring: Scoring) -> list[list[str]]:
    """Answer every split, then score."""
    folder, lines = str(run.folder), []
    files = run.predictions(scoring)
    for split, file in files.items():
        lines.append([*CLI, "predict", folder, "--split", split, "--out", str(file), "--decode", scoring.decode])
        lines[-1] += ["--max-new-tokens", str(scoring.max_new_tokens), "--batch-size", str(scoring.batch_size)]
        lines[-1] += ["--limit-per-set", str(scoring.limit)] if scoring.limit else []
    answers = [str(file) for file in files.values()]
    lines.append([*CLI, "score", *answers, "--out", str(run.folder / "results.json"), "--tokenizer", scoring.tokenizer])
    lines[-1] += [] if scoring.meteor else ["--no-meteor"]
    return lines


def write_plan(table: Table, runs: Sequence[PlannedRun], out: Path) -> None:
    """Write OUT/table.yaml and the recipe of every run that has not begun."""
    out.mkdir(parents=True, exist_ok=True)
    tree = table.model_dump(mode="json")
    write_text(out / "table.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    for run in runs:
        if not run.begun:
            run.folder.mkdir(parents=True, exist_ok=True)
            save_recipe(run.recipe, run.folder / "recipe.yaml")


def _planned(table: Table, path: Path, out: Path, row: TableRow, seed: int) -> PlannedRun:
    base = path.parent / (row.recipe or table.base or "")
    used = {field: run_name(name, table.used_seed(name, seed)) for field, name in row.uses.items()}
    tree = copy.deepcopy(read_tree(base))
    tree |= {"name": f"{table.name}.{row.name}", "about": row.label or row.name}
    folders = [f"{field}={json.dumps((out / name).as_posix())}" for field, name in used.items()]
    where = f"{path}: rows.{row.name}"
    recipe = parse_recipe(tree, [*row.set, f"seed={seed}", *folders], origin=f"{base} with {where}", place=where)
    # The base's own caches hold the features and words of other runs' models, or are not there.
    if recipe.data.vision_cache is not None:
        data = recipe.data.model_copy(update={"vision_cache": out / CACHE})
        recipe = recipe.model_copy(update={"data": data})
    if recipe.distill.teacher_cache is not None:
        distill = recipe.distill.model_copy(update={"teacher_cache": out / CACHE})
        recipe = recipe.model_copy(update={"distill": distill})
    return PlannedRun(row.name, seed, out / run_name(row.name, seed), recipe, tuple(dict.fromkeys(used.values())))


def _missing_splits(table: Table, path: Path, run: PlannedRun) -> Iterator[Problem]:
    """Splits that the run would be asked about, and that none of its sources has."""
    known: dict[str, None] = {}
    for source in run.recipe.data.sources:
        known |= dict.fromkeys(source.files if source.split_by == "file" else source.fractions)
    for split in table.score.splits:
        if split not in known:
            expected = f"a split of rows.{run.row}: {', '.join(known)}"
            yield Problem(str(path), "score.splits", expected, repr(split), "correct the name, or the row's sources")
