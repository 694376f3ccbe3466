"""The table of `drivedistill probe`: conditions below one another, one block per set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drivedistill.evaluate.looking import by_set
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.tables import plain, with_interval

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Plain text: for every set the conditions with score, difference to clean, share of the clean score, and `looks`."""
    return "\n".join(_block(place, here) for place, here in by_set(rows).items())


def _block(place: QuestionSet, rows: Sequence[Row]) -> str:
    title = f"{place.dataset} {place.split}, {place.regime}"
    lines = [["", "score", "minus clean", "of clean", "looks"]]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        here = [row for row in rows if row["metric"] == metric]
        heading = f"{METRICS[metric].label}: {here[0]['n']:,} questions, {here[0]['scenes']:,} scenes"
        lines.append([heading, "", "", "", ""])
        lines += [_line(row) for row in here]
    width = 5 if any("looks" in row for row in rows) else 4
    return "\n".join([title, *plain([line[:width] for line in lines]), ""])


def _line(row: Row) -> list[str]:
    return [
        f"  {row['condition']}",
        _cell([row["value"], row["low"], row["high"]], ".1f"),
        _cell(row.get("minus_clean"), "+.1f"),
        _cell(row.get("relative"), ".0%"),
        _cell(row.get("looks"), ".2f"),
    ]


def _cell(numbers: Sequence[float | None] | None, form: str) -> str:
    if numbers is None or numbers[0] is None:
        return ""
    return with_interval(numbers[0], numbers[1], numbers[2], form)
