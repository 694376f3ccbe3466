"""The figures as Markdown: one column per model, so that they stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from drivedistill.tables import markdown, with_interval

Row: TypeAlias = dict[str, Any]
"""A model's line in `bench.json`."""

Show: TypeAlias = Callable[[Row], str]

_STAGES = {
    "image_decode": "image decode",
    "preprocess": "preprocess",
    "vision": "vision",
    "encoder": "encoder or prefill",
    "first_token": "first token",
    "decode": "decode, all other tokens",
}

_SHARES = {
    "in_time_80": "answered within 80 ms, %",
    "in_time_100": "answered within 100 ms, %",
    "rsdr_80": "RSDR at 80 ms, %",
    "rsdr_100": "RSDR at 100 ms, %",
    "rsdr_80_clip": "RSDR of whole clips at 80 ms, %",
    "rsdr_100_clip": "RSDR of whole clips at 100 ms, %",
}


def number(value: float | None, decimals: int, unit: str = "") -> str:
    """A figure as a table shows it; a dash for none."""
    return "-" if value is None else f"{value:,.{decimals}f}{unit}"


def models_table(rows: Sequence[Row]) -> str:
    """All figures of the models, one line per figure."""
    lines = [[label, *map(show, rows)] for label, show in _lines(rows)]
    return markdown([["", *(row["name"] for row in rows)], *lines])


def drivekd_table(rows: Sequence[Row]) -> str:
    """Drive-KD's efficiency columns."""
    shows = [_figure("memory_gb", 2), _figure("tokens_per_s", 1), _figure("first_token_resident_ms", 4, 1e-3)]
    lines = [[row["name"], *(show(row) for show in shows)] for row in rows]
    return markdown([["model", "memory, GB", "tokens/s", "first token, s"], *lines])


def training_table(rows: Sequence[Row]) -> str:
    """What the models' training cost, one line per run."""
    shows = [_figure("hours", 3), _figure("steps", 0), _figure("epochs", 2)]
    shows += [_figure("teacher_share", 1, 100), _figure("peak_memory_gb", 2), _plain("device"), _plain("threads")]
    lines = [[row["name"], *(show(row) for show in shows)] for row in rows]
    head = [
        "run",
        "hours",
        "steps",
        "epochs",
        "teacher's forward, % of the time",
        "peak memory, GB",
        "device",
        "threads",
    ]
    return markdown([head, *lines])


def _lines(rows: Sequence[Row]) -> Iterator[tuple[str, Show]]:
    for key in ("device", "threads", "precision", "engine"):
        yield key, _plain(key)
    for kind in ("total", "activated"):
        yield f"parameters, {kind}, 1e6", _figure(f"params_{kind}_1e6", 3)
        yield f"parameters, {kind}, 2^20", _figure(f"params_{kind}_2p20", 3)
    yield "weights, MB", _figure("weights_mb", 1)
    yield "peak memory, GB", _figure("memory_gb", 3)
    for stage, label in _STAGES.items():
        yield f"{label}, median ms", _figure(f"stages_median_ms.{stage}", 2)
    for percent in (50, 90, 99):
        yield f"latency p{percent}, ms", _figure(f"latency_p{percent}_ms", 1)
    yield "FPS, from disk", _figure("fps_disk", 2)
    yield "FPS, images resident", _figure("fps_resident", 2)
    yield "times as fast, from disk", _figure("speed_disk", 2)
    yield "times as fast, images resident", _figure("speed_resident", 2)
    yield "first token, from disk, median ms", _figure("first_token_ms", 1)
    yield "first token, images resident, median ms", _figure("first_token_resident_ms", 1)
    yield "tokens/s after the first", _figure("tokens_per_s", 1)
    yield "tokens per answer, mean", _figure("answer_tokens_mean", 1)
    yield "answers cut at the limit", _figure("cut_answers", 0)
    if any("right" in row for row in rows):
        yield "right, %", _figure("right", 1, 100)
    for name, label in _SHARES.items():
        if any(name in row for row in rows):
            yield label, _figure(name, 1, 100)
    yield "cost of watching the stages, %", _figure("watching_cost", 1, 100)


def _plain(key: str) -> Show:
    return lambda row: str(row[key])


def _figure(path: str, decimals: int, factor: float = 1) -> Show:
    """A number somewhere in the row, with its interval if it has one."""

    def show(row: Row) -> str:
        cell: Any = row
        for key in path.split("."):
            cell = cell.get(key)
        if not isinstance(cell, dict):
            return number(None if cell is None else cell * factor, decimals)
        value, low, high = (None if cell[key] is None else cell[key] * factor for key in ("value", "low", "high"))
        return "-" if value is None else with_interval(value, low, high, f",.{decimals}f")

    return show
