"""The table of `drivedistill probe`: conditions below one another, one block per set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drivedistill.evaluate.metric import METRICS

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Plain text: for every set the conditions with score, difference to clean, share of the clean score, and `looks`."""
    blocks = dict.fromkeys((row["dataset"], row["split"], row["regime"]) for row in rows)
    return "\n".join(
        _block([row for row in rows if (row["dataset"], row["split"], row["regime"]) == place]) for place in blocks
    )


def _block(rows: Sequence[Row]) -> str:
    first = rows[0]
    title = f"{first['dataset']} {first['split']}, {first['regime']}: {first['n']} questions, {first['scenes']} scenes"
    lines = [["", "score", "minus clean", "of clean", "looks"]]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        lines.append([METRICS[metric].label, "", "", "", ""])
        lines += [_line(row) for row in rows if row["metric"] == metric]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    printed = ["  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]) for cells in lines]
    return "\n".join([title, *(line.rstrip() for line in printed), ""])


def _line(row: Row) -> list[str]:
    return [
        f"  {row['condition']}",
        _cell([row["value"], row["low"], row["high"]], "{:.1f}"),
        _cell(row.get("minus_clean"), "{:+.1f}"),
        _cell(row.get("relative"), "{:.0%}"),
        _cell(row.get("looks"), "{:.2f}"),
    ]


def _cell(numbers: Sequence[float | None] | None, form: str) -> str:
    if numbers is None or numbers[0] is None:
        return ""
    value, low, high = numbers
    shown = form.format(value)
    return shown if low is None or high is None else f"{shown} [{form.format(low)}, {form.format(high)}]"
