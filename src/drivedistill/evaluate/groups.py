"""Numbers of parts of a set: per kind of hazard, weather, light, road, or whatever else is known about its frames.

    {"frame": "2b09...", "scene": "86b6...", "kind": "snow", "weather": "snow", "light": "dusk", ...}      one line per frame

Such facts are no part of the answers: they are looked up by scene and frame, or by frame alone where they name no scene, and
never by data set. Facts of data sets whose frames have the same names must therefore name scenes that differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ConfigDict

from drivedistill.evaluate.captions.measures import Tokenizer
from drivedistill.evaluate.families import answer_findings, measures_of
from drivedistill.evaluate.measure import Measure, draw_scenes
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import Place, Rows, place_of
from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction, Row, Score, read_jsonl

Facts = Mapping[tuple[str, str], Mapping[str, str]]
"""Scene (empty where the facts do not say) and frame -> field -> value."""


class _Frame(Row):
    """A line of a file of facts; other fields are free."""

    called = "facts about frames"
    model_config = ConfigDict(frozen=True, extra="allow")

    frame: str
    scene: str = ""


def read_facts(paths: Sequence[Path], fields: Sequence[str]) -> Facts:
    """Read what is known about frames.

    Args:
        paths: JSONL files with a `frame`, and perhaps a `scene`, on every line.
        fields: Those to keep; each a text, a whole number, or true or false on every line.

    Raises:
        InputError: A line is no such row, lacks a field, has a list or an object there, or contradicts another about the
            same frame.
    """
    facts: dict[tuple[str, str], dict[str, str]] = {}
    problems: list[Problem] = []
    for path in paths:
        rows = read_jsonl(path, _Frame)
        flat = {
            field for row in rows for field, value in (row.model_extra or {}).items() if isinstance(value, str | int)
        }
        for field in dict.fromkeys(fields):
            lacking = [row.frame for row in rows if not isinstance((row.model_extra or {}).get(field), str | int)]
            if lacking:
                found = f"none on {len(lacking):,} of {len(rows):,} lines, such as frame {lacking[0]}"
                remedy = f"choose another --by: {', '.join(sorted(flat)) or 'there is none'}"
                problems.append(Problem(str(path), field, "a text or whole number on every line", found, remedy))
        for row in rows:
            mine = {field: str((row.model_extra or {}).get(field)) for field in fields}
            if facts.setdefault((row.scene, row.frame), mine) != mine:
                expected, found = "one line per frame", "two that differ"
                problems.append(Problem(str(path), f"frame {row.frame}", expected, found, "remove one of them"))
    if problems:
        raise InputError(problems)
    return facts


def _known(facts: Facts, item: Prediction) -> Mapping[str, str] | None:
    return facts.get((item.scene, item.frame), facts.get(("", item.frame)))


def group_scores(
    predictions: Sequence[Prediction],
    facts: Facts,
    fields: Sequence[str],
    *,
    tokenizer: Tokenizer = "ptb",
    seed: int = 0,
) -> list[Score]:
    """Caption metrics but METEOR, and the numbers of every family, for every value of every field, within each place.

    Args:
        predictions: Those without a reference are left out, as in `score`.
        facts: What is known about every frame of the predictions.
        fields: By which to divide; one after the other, not crossed.
        tokenizer: See `captions.measures`.
        seed: Of the bootstrap over scenes.

    Returns:
        A row `without_facts` for every place of which nothing is known at all; then rows with `group` set (`kind=snow`), by
        place, field, value (in the order of the alphabet), then as in `METRICS`.

    Raises:
        InputError: Nothing is known about some frames of a place, or about any place; counted per place.
    """
    parts: dict[tuple[Place, str], list[Prediction]] = {}
    unknown: dict[Place, list[str]] = {}
    for item in predictions:
        if item.reference is None or not fields:
            continue
        known = _known(facts, item)
        if known is None:
            unknown.setdefault(place_of(item), []).append(item.frame)
            continue
        for field in dict.fromkeys(fields):
            parts.setdefault((place_of(item), f"{field}={known[field]}"), []).append(item)
    places = list(dict.fromkeys(place for place, _ in parts))
    # A set of which nothing is known (CODA-LM beside DriveLM) has no parts; one of which half is known is a mistake.
    lacking = [_unknown(place, frames) for place, frames in unknown.items() if place in places or not places]
    if lacking:
        raise InputError(lacking)
    keys = sorted(parts, key=lambda key: (places.index(key[0]), fields.index(key[1].partition("=")[0]), key[1]))
    measures = measures_of(parts, meteor=False, tokenizer=tokenizer)
    skipped = [_without(Rows(place, seed), len(frames)) for place, frames in unknown.items()]
    return skipped + [row for key in keys for row in _rows(Rows(key[0], seed), key[1], parts[key], measures[key])]


def _without(rows: Rows, count: int) -> Score:
    return rows.row("without_facts", count, count, "--facts say nothing about any frame of this set")


def _unknown(place: Place, frames: Sequence[str]) -> Problem:
    counts = Counter(frames)
    found = f"nothing about {len(counts):,} frames ({len(frames):,} answers), such as {min(counts)}"
    where = f"{place.regime} {place.dataset} {place.split}"
    return Problem(
        "predictions", where, "a line in --facts for every frame", found, "add the facts of this set, or leave it out"
    )


def _rows(rows: Rows, group: str, items: Sequence[Prediction], measures: Mapping[str, Measure]) -> list[Score]:
    draws = draw_scenes([item.scene for item in items], rows.seed)
    found = list(rows.measured(measures, draws, group=group))
    found += [rows.row(name, *finding, group=group) for name, finding in answer_findings(items).items()]
    names = list(METRICS)
    return sorted(found, key=lambda row: names.index(row.name))
