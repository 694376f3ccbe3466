"""What the training of the models cost that take part, as far as they are runs that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from drivedistill.bench.table import Row


def training_costs(paths: Mapping[str, str]) -> list[Row]:
    """The cost of every finished run among the models.

    Args:
        paths: Short names -> runs, directories or hub ids; what has no `run.json` is left out.

    Returns:
        Hours, steps and epochs; the teacher's share of the time and the peak of memory, None in runs of earlier versions,
        which did not note them.
    """
    rows: list[Row] = []
    for name, path in paths.items():
        file = Path(path) / "run.json"
        facts = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if facts.get("finished"):
            kept = ("kind", "steps", "epochs", "seconds", "teacher_share", "peak_memory_gb", "device", "threads")
            rows.append({"name": name, **{key: facts.get(key) for key in kept}, "hours": facts["seconds"] / 3600})
    return rows
