"""The table of `recipes/quickstart.yaml` with what depends on the call: paths, the teacher, steps, questions, the seed.

OUT/quickstart.json  report.html  .lock
OUT/data/world/      the data set
OUT/table/           the table, as `drivedistill ablate` leaves it: table.md, ROW/seed-S/ with model, answers, results
OUT/bench/           bench.json, bench.md, rsdr.svg and the answers under the clock
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drivedistill.ablate.card import Scoring, Table, TableRow, load_table
from drivedistill.ablate.plan import PlannedRun, plan
from drivedistill.evaluate.captions.java import find_java, scorers_folder
from drivedistill.problems import InputError
from drivedistill.quickstart.budget import Budget
from drivedistill.quickstart.origin import FILES, Teacher, sha256
from drivedistill.yaml_tree import read_tree

RECIPE = Path(__file__).parent / "recipes" / "quickstart.yaml"
SIZE = 112
"""Width and height of the world's pictures, in pixels."""
TEACHER, PLAIN, BEST, SMALL = "teacher", "student", "clkd", "small"
"""Rows that the instruments look at; the last begins with the teacher's half tower."""


@dataclass(frozen=True)
class Call:
    """What was asked for."""

    out: Path
    minutes: float = 10.0
    seed: int = 0
    jobs: int = 2
    teacher: Path | None = None
    """None: the demo teacher."""
    overrides: tuple[str, ...] = ()
    """`key.sub=value` on the recipe of every row."""

    @property
    def world(self) -> Path:
        """Root of the data set."""
        return self.out / "data" / "world"

    @property
    def table(self) -> Path:
        """Folder of the table."""
        return self.out / "table"


def planned(call: Call, budget: Budget, teacher: Teacher, precision: str) -> tuple[Table, list[PlannedRun]]:
    """The table and its runs; nothing is written. Students learn in `precision`.

    Raises:
        InputError: Overrides do not fit, or the scorers are not installed.
    """
    card = load_table(RECIPE)
    base = RECIPE.parent / (card.base or "")
    sources = read_tree(base)["data"]["sources"]
    roots = {f"data.sources.{i}.root": (call.out / source["root"]).as_posix() for i, source in enumerate(sources)}
    shared = roots | {f"data.{name}": value for name, value in teacher.reading.items()}
    shared["train.precision"] = precision
    score = card.score.model_copy(update=_scorers() | {"limit": budget.questions})
    rows = [row for row in card.rows if row.name != SMALL or teacher.half_tower]
    changes = {
        "rows": [_row(row, shared, call, budget, teacher) for row in rows],
        "differences": [pair for pair in card.differences if SMALL not in pair or teacher.half_tower],
        "seeds": [call.seed],
        "score": score,
        "columns": [name for name in card.columns if score.meteor or name not in ("METEOR", "Avg")],
    }
    card = card.model_copy(update=changes)
    return card, plan(card, RECIPE, call.table)


def _row(row: TableRow, shared: dict[str, Any], call: Call, budget: Budget, teacher: Teacher) -> TableRow:
    """A row with the numbers of this call; what it sets itself comes before, what the user sets comes last."""
    own: dict[str, Any] = {}
    if "model.path" not in row.uses:
        own["model.path"] = ((row.name == SMALL and teacher.half_tower) or teacher.path).as_posix()
    if row.name != TEACHER:
        own |= {
            "train.steps": budget.steps,
            "train.warmup_steps": budget.steps // 10,
            "train.validate_every": max(1, budget.steps // 2),
        }
    fields = [f"{name}={json.dumps(value)}" for name, value in (shared | own).items()]
    return row.model_copy(update={"set": [*row.set, *fields, *_concerning(row, call.overrides)]})


def _concerning(row: TableRow, overrides: Sequence[str]) -> list[str]:
    """Those of the user's changes that are about something the row has: `mining.samples=75` gives no row a miner."""
    if row.name == TEACHER:
        return [text for text in overrides if text.startswith("data.")]
    absent = {name for name, _, value in (text.partition("=") for text in row.set) if value == "null"}
    if "teacher" in absent:
        absent.add("distill")
    return [
        text for text in overrides if not any(f"{text.partition('=')[0]}.".startswith(f"{name}.") for name in absent)
    ]


def _scorers() -> dict[str, Any]:
    """METEOR and the papers' tokenizer where there is Java.

    Raises:
        InputError: The scorers are not installed.
    """
    scorers_folder()
    try:
        find_java()
    except InputError:
        return {"meteor": False, "tokenizer": "approximate"}
    return {"meteor": True, "tokenizer": Scoring().tokenizer}


def settings(call: Call, budget: Budget, teacher: Teacher, precision: str, card: Table) -> dict[str, Any]:
    """What the folder is a function of, for `quickstart.json`."""
    return {
        "minutes": call.minutes,
        "seed": call.seed,
        "overrides": list(call.overrides),
        "recipes": hashlib.sha256(b"".join(file.read_bytes() for file in sorted(RECIPE.parent.iterdir()))).hexdigest(),
        "budget": asdict(budget),
        "precision": precision,
        "teacher": {"path": teacher.path.as_posix(), "sha256": teacher.digest, "origin": teacher.origin},
        "half_tower": teacher.half_tower and sha256(teacher.half_tower / FILES[1]),
        "score": card.score.model_dump(mode="json"),
    }
