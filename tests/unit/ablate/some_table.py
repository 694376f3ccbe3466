"""A small table recipe, its base, and finished runs made up for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from drivedistill.ablate.card import Table, load_table
from drivedistill.ablate.plan import PlannedRun, plan
from drivedistill.evaluate.score import score
from drivedistill.recipe import save_recipe
from drivedistill.records import Prediction, Task, write_json, write_jsonl

BASE: dict[str, Any] = {
    "name": "base",
    "data": {"sources": [{"name": "a", "format": "drivelm", "root": "data/a", "regime": "regular"}]},
    "model": {"preset": "tiny"},
    "teacher": {"path": "somewhere"},
}
TABLE: dict[str, Any] = {
    "name": "some",
    "about": "Two rows.",
    "base": "base.yaml",
    "seeds": [0, 1],
    "score": {"meteor": False, "tokenizer": "approximate"},
    "columns": ["BLEU-4", "ROUGE-L", "Exact match"],
    "rows": [
        {"name": "teacher", "seeds": [5], "set": ["teacher=null"]},
        {"name": "student", "label": "#2", "uses": {"teacher.path": "teacher"}},
        {"name": "long", "label": "#3", "set": ["train.steps=9"], "uses": {"teacher.path": "teacher"}},
    ],
    "differences": [["long", "student"]],
}


def write(folder: Path, tree: dict[str, Any]) -> Path:
    """The table's file; its base beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def planned(folder: Path, tree: dict[str, Any] = TABLE) -> tuple[Table, dict[str, PlannedRun]]:
    """The table and its runs by name, in their order; OUT is `folder/out`."""
    path = write(folder, tree)
    table = load_table(path)
    return table, {run.name: run for run in plan(table, path, folder / "out")}


def begin(run: PlannedRun, finished: str | None = None, **facts: Any) -> None:
    """What a run's folder holds once it has begun."""
    run.folder.mkdir(parents=True, exist_ok=True)
    save_recipe(run.recipe, run.folder / "recipe.yaml")
    write_json(run.folder / "run.json", {"finished": finished, **facts})


def finish(
    table: Table, run: PlannedRun, answers: list[str], tasks: Sequence[Task] = ("planning",), **facts: Any
) -> None:
    """A run that answered `Yes now.` questions of two scenes per regime with `answers`, of `tasks` by turns, and was scored."""
    begin(run, "2026-01-01", **facts)
    rows = [
        Prediction(id=f"{regime}{i}", dataset=dataset, scene=f"{regime}{i % 2}", frame="f", split="test", regime=regime,
                   task=tasks[i % len(tasks)], question="Go?", reference="Yes now.", prediction=answer, model="m",
                   decode="greedy")
        for regime, dataset in (("corner", "coda_lm"), ("regular", "drivelm"))
        for i, answer in enumerate(answers)
    ]  # fmt: skip
    for file in run.predictions(table.score).values():
        file.parent.mkdir(exist_ok=True)
        write_jsonl(file, rows)
    scores = score(rows, meteor=False, tokenizer="approximate")
    write_json(run.folder / "results.json", [row.model_dump() for row in scores])


def log(run: PlannedRun, *records: dict[str, Any]) -> None:
    """Lines of `metrics.jsonl`."""
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
