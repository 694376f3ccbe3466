"""`metrics.jsonl` of a run: one JSON object per line, `step` in each; the last line of a killed process may be cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_metrics(path: Path) -> Callable[[dict[str, Any]], None]:
    """A log function that appends one JSON object per line."""

    def log(record: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    return log


def read_metrics(path: Path, last_bytes: int | None = None) -> list[dict[str, Any]]:
    """The records of a file, in order; those that were cut are left out.

    Args:
        path: The file; none is as an empty one.
        last_bytes: Read only so much of its end.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        if last_bytes is not None:
            file.seek(max(0, path.stat().st_size - last_bytes))
        lines = file.read().decode("utf-8", "replace").splitlines()
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):  # the end of a line may be a number
            records.append(record)
    return records
