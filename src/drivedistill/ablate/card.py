"""The table recipe: which rows a table has, how each differs from an ordinary recipe, and what is printed of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from drivedistill.evaluate.decoding import decoding
from drivedistill.evaluate.metric import METRICS
from drivedistill.problems import InputError, Problem
from drivedistill.records import Regime, validation_problems
from drivedistill.section import Count, Section
from drivedistill.yaml_tree import read_tree

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

COLUMNS = {metric.label.partition(" (")[0].strip(): name for name, metric in METRICS.items()}
"""What a table may show, by its label: `BLEU-4`, `METEOR`, `ROUGE-L`, `Avg`, `Exact match`, ..."""


CACHE = "cache"
"""Folder below OUT that the runs share; no row may be called so."""


class Scoring(Section):
    """What the finished runs are asked, and how their answers are scored; the same for every row."""

    splits: Annotated[list[str], Field(min_length=1)] = ["test"]
    """Of each recipe's own sources."""
    limit: Count | None = None
    """Questions of each data set and regime, the same ones every time; null: all."""
    decode: str = "greedy"
    max_new_tokens: Count = 256
    batch_size: Count = 32
    meteor: bool = True
    tokenizer: Literal["ptb", "approximate"] = "ptb"
    """`approximate` needs no Java; never METEOR."""


class TableRow(Section):
    """One line of the table: a recipe, changed, and run once per seed."""

    name: Name
    label: str = ""
    """What the table prints; empty: the name."""
    recipe: Path | None = None
    """Another base than the table's; relative to the table's file."""
    seeds: Seeds | None = None
    """Null: the table's."""
    set: list[str] = []
    """`key.sub=value` on the base, in this order."""
    uses: dict[str, str] = {}
    """Field of the recipe -> row whose run is put there (`teacher.path: teacher`): the run of the same seed, or of that
    row's first seed where it has no such one."""
    published: dict[Regime, dict[str, float]] = {}
    """The paper's figures by column, in the paper's scale; printed beside ours."""
    published_cost: dict[str, float] = {}
    """What the paper says that a model costs, by name and unit (`Memory, GB`); printed by itself."""
    run: bool = True
    """False: not ours to run (a model behind an interface, a family that is not supported); only the paper's figures stand."""


class Table(Section):
    """A table of a paper, or of ours."""

    name: Name
    about: str
    """What it is, and whether it was run."""
    base: Path | None = None
    """An ordinary recipe; relative to the table's file."""
    seeds: Seeds = [0]
    score: Scoring = Scoring()
    columns: Annotated[list[str], Field(min_length=1)] = ["BLEU-4", "METEOR", "ROUGE-L", "Avg", "Exact match"]
    rows: Annotated[list[TableRow], Field(min_length=1)]
    differences: list[tuple[str, str]] = []
    """Pairs of rows (A, B): A - B, paired by seed and scene."""
    run: bool = True
    """False: listed for the record; started only with `--force`."""
    published_by: str = ""
    """How the paper came to its figures where ours are made otherwise; printed beneath the table."""
    needs: str = ""
    """What a table with `run: false` needs before it can be run."""

    def row(self, name: str) -> TableRow:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def seeds_of(self, row: TableRow) -> list[int]:
        """The row's own seeds, or the table's; none of a row that is not run."""
        return (row.seeds or self.seeds) if row.run else []

    def used_seed(self, name: str, seed: int) -> int:
        """Which run of the row `name` a run with `seed` uses."""
        seeds = self.seeds_of(self.row(name))
        return seed if seed in seeds else seeds[0]


def load_table(path: Path) -> Table:
    """Read a table recipe.

    Raises:
        InputError: The file is missing or no YAML, fields are unknown or invalid, or rows do not fit together; every
            finding is listed. The rows' recipes are looked at by `plan`.
    """
    tree = read_tree(path, "a table recipe (YAML)")
    if "rows" not in tree and tree.keys() & {"model", "data"}:
        remedy = "use `drivedistill train` or `distill`"
        raise InputError(Problem(str(path), "", "a table recipe (with `rows`)", "an ordinary recipe", remedy))
    try:
        table = Table.model_validate(tree)
    except ValidationError as error:
        raise InputError(validation_problems(error, str(path), "")) from error
    problems = [*_rows(table, path), *_scoring(table, path), *_columns(table, path), *_differences(table, path)]
    if not table.run and not table.needs:
        problems.append(Problem(str(path), "needs", "what the table needs before it can be run", "nothing", "say it"))
    if problems:
        raise InputError(problems)
    return table


def _rows(table: Table, path: Path) -> Iterator[Problem]:
    """Names, seeds, bases, and who uses whom."""
    names = [row.name for row in table.rows]
    runnable = [row.name for row in table.rows if row.run]
    known = f"a row that is run: {', '.join(runnable)}"
    for position, row in enumerate(table.rows):
        where = f"rows.{row.name}"
        if row.name in names[:position]:
            yield Problem(str(path), where, "every name once", "the name a second time", "rename one of the rows")
        if row.name == CACHE:
            yield Problem(str(path), where, "another name", "that of a folder which all rows share", "rename the row")
        if row.run and row.recipe is None and table.base is None:
            yield Problem(str(path), where, "a recipe", "neither `base` nor `recipe`", "name a recipe file")
        for field, used in row.uses.items():
            if used not in runnable:
                yield Problem(str(path), f"{where}.uses.{field}", known, repr(used), "correct the name")
    seeds = [("seeds", table.seeds), *((f"rows.{row.name}.seeds", row.seeds or []) for row in table.rows)]
    for where, given in seeds:
        if len(set(given)) < len(given):
            yield Problem(str(path), where, "every seed once", str(given), "remove the repetition")
    try:
        TopologicalSorter({row.name: set(row.uses.values()) for row in table.rows}).prepare()
    except CycleError as error:
        found = " uses ".join(reversed(error.args[1]))
        yield Problem(str(path), "rows", "rows that do not wait for themselves", found, "break the circle in `uses`")


def _scoring(table: Table, path: Path) -> Iterator[Problem]:
    """What `predict` and `score` would refuse after hours of training."""
    try:
        decoding(table.score.decode, table.score.max_new_tokens)
    except InputError as error:
        yield from (replace(problem, file=str(path), record="score.decode") for problem in error.problems)
    if table.score.meteor and table.score.tokenizer == "approximate":
        found, remedy = "true, with the approximate tokenizer", "set score.meteor to false, or the tokenizer to ptb"
        yield Problem(str(path), "score.meteor", "METEOR with its own tokenizer (ptb)", found, remedy)


def _columns(table: Table, path: Path) -> Iterator[Problem]:
    for column in table.columns:
        if column not in COLUMNS:
            yield Problem(str(path), "columns", f"one of {', '.join(COLUMNS)}", repr(column), "correct the name")
        elif COLUMNS[column] in ("meteor", "avg") and not table.score.meteor:
            remedy = "remove the column, or set score.meteor to true"
            yield Problem(str(path), "columns", "columns that are scored", f"{column!r} without METEOR", remedy)
    for row in table.rows:
        for regime, figures in row.published.items():
            for name in figures.keys() - set(table.columns):
                where = f"rows.{row.name}.published.{regime}"
                yield Problem(str(path), where, f"a column: {', '.join(table.columns)}", repr(name), "correct the name")


def _differences(table: Table, path: Path) -> Iterator[Problem]:
    names = [row.name for row in table.rows]
    for pair in table.differences:
        unknown = [name for name in pair if name not in names]
        where = f"differences [{', '.join(pair)}]"
        if unknown:
            yield Problem(str(path), where, f"rows: {', '.join(names)}", ", ".join(unknown), "correct the names")
        elif not set.intersection(*(set(table.seeds_of(table.row(name))) for name in pair)):
            yield Problem(str(path), where, "rows with a seed in common", "none", "give both rows the same seeds")
