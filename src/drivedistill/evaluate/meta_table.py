"""Confusion matrices and F1s of meta-actions, for people (`score` prints them) and for scripts (`*.meta_actions.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.data.meta_action import PATHS, SPEEDS, strict
from drivedistill.evaluate.meta_actions import measures, truths
from drivedistill.evaluate.rows import Place, place_of
from drivedistill.records import Prediction
from drivedistill.tables import plain

UNPARSABLE = "unparsable"
_SUFFIXES = {"": "F1", "_constant": "constant", "_lenient": "published"}


class MetaTable(NamedTuple):
    """The meta-actions of one place."""

    place: Place
    answers: int
    constant: str
    """How the constant answer was made."""
    speed: NDArray[np.int64]
    """`int64[4, 5]`: rows the reference in the order of `SPEEDS`, columns what was said, the last one nothing readable."""
    path: NDArray[np.int64]
    """`int64[5, 6]`, in the order of `PATHS`."""
    f1: dict[str, dict[str, float]]
    """Action -> `F1`, `constant`, `published` where they exist, as fractions."""


def meta_tables(predictions: Sequence[Prediction]) -> list[MetaTable]:
    """One table for each place that has reference actions, by the strict parser.

    Raises:
        InputError: A reference that is no meta-action.
    """
    places: dict[Place, list[Prediction]] = {}
    for item in predictions:
        if item.reference is not None and item.meta_action is not None:
            places.setdefault(place_of(item), []).append(item)
    return [_table(place, items) for place, items in places.items()]


def _table(place: Place, items: Sequence[Prediction]) -> MetaTable:
    speed: NDArray[np.int64] = np.zeros((len(SPEEDS), len(SPEEDS) + 1), dtype=np.int64)
    path: NDArray[np.int64] = np.zeros((len(PATHS), len(PATHS) + 1), dtype=np.int64)
    for item, truth in zip(items, truths(items), strict=True):
        said = strict(item.prediction.strip())
        if truth is not None:
            speed[SPEEDS.index(truth.speed), SPEEDS.index(said.speed) if said else -1] += 1
            path[PATHS.index(truth.path), PATHS.index(said.path) if said else -1] += 1
    found = measures(items)
    f1: dict[str, dict[str, float]] = {
        action: {
            label: found[name].point
            for suffix, label in _SUFFIXES.items()
            if (name := f"meta_f1_{action.lower()}{suffix}") in found
        }
        for action in (*SPEEDS, *PATHS)
    }
    return MetaTable(place, len(items), found["meta_accuracy_constant"].implementation, speed, path, f1)


def as_json(table: MetaTable) -> dict[str, object]:
    """What the file says: the place, names of rows and columns, counts, F1s."""
    return {
        **table.place._asdict(),
        "n": table.answers,
        "constant": table.constant,
        "speed": {"references": SPEEDS, "answers": (*SPEEDS, UNPARSABLE), "counts": table.speed.tolist()},
        "path": {"references": PATHS, "answers": (*PATHS, UNPARSABLE), "counts": table.path.tolist()},
        "f1": table.f1,
    }


def format_meta(tables: Sequence[MetaTable]) -> str:
    """Plain text: for each place a matrix of speeds and one of paths, every row with its F1s in percent."""
    return "\n\n".join(_format(table) for table in tables)


def _format(table: MetaTable) -> str:
    place = table.place
    head = f"Meta-actions, {place.regime} {place.dataset} {place.split}, {place.decode}, {place.condition}"
    legend = "Rows: reference; columns: answer, strictly read. F1 x100: of the answers, of the constant, by the published rule."
    blocks = [f"{head}: n = {table.answers:,}, constant = {table.constant}", legend]
    for names, counts in ((SPEEDS, table.speed), (PATHS, table.path)):
        lines = [["", *names, UNPARSABLE, *_SUFFIXES.values()]]
        for name, row in zip(names, counts.tolist(), strict=True):
            lines.append(
                [name, *(f"{count:,}" for count in row), *(_percent(table.f1[name].get(s)) for s in _SUFFIXES.values())]
            )
        blocks += ["", *plain(lines)]
    return "\n".join(blocks)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
