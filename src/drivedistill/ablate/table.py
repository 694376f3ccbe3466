"""A table for people (Markdown, also what is printed) and for spreadsheets (CSV, one figure per line)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from drivedistill import tables
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.records import write_json, write_text

REGIME = {"regular": "R", "corner": "C"}
MARK = {"better": "▲", "worse": "▼", "too few scenes": "?"}
"""What stands behind a difference, of A."""


def markdown(found: dict[str, Any]) -> str:
    """The page `table.md` of what `results.tabulate` found.

    Each row has a line per place, regular ones (R) before corner ones (C), as CLKD's Table II. A figure is the mean over
    seeds, then the standard deviation over seeds, then the paper's figure in brackets.
    """
    several = len({place["split"] for row in found["rows"] for place in row["places"]}) > 1
    parts = [f"# {found['name']}", found["about"].strip()]
    scored = [row for row in found["rows"] if row["places"] or row["published"]]
    if scored:
        parts.append(
            tables.markdown([["Row", "Data", *found["columns"], "runs"], *_score_lines(found, several)], left=2)
        )
    costs = [_cost_line(row) for row in found["rows"] if row["seeds"]]
    if costs:
        header = ["Row", "parameters (M)", "activated (M)", "trainable (M)", "training (s)", "seeds"]
        parts += ["## What the models cost", tables.markdown([header, *costs])]
    if published := [*_published_cost_lines(found)]:
        parts += ["## What they cost in the paper", tables.markdown(published)]
    if found["differences"]:
        parts += ["## Differences", tables.markdown([*_difference_lines(found, several)], left=2)]
    missing = [f"* {row['label']}, seed {run['seed']}: {run['state']}" for row in found["rows"] for run in row["runs"]
               if run["state"] != "done"]  # fmt: skip
    if missing:
        parts += ["## Not in the table", "\n".join(missing)]
    return "\n\n".join([*parts, "\n".join(f"{note}  " for note in _notes(found)).rstrip()]).rstrip() + "\n"


def write_table(found: dict[str, Any], folder: Path) -> str:
    """Write `table.json`, `table.csv` and `table.md` of what `results.tabulate` found; returns the page."""
    page = markdown(found)
    write_json(folder / "table.json", found)
    write_text(folder / "table.csv", csv_text(found))
    write_text(folder / "table.md", page)
    return page


def csv_text(found: dict[str, Any]) -> str:
    """`table.csv`: one figure per line."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "minus", "regime", "dataset", "split", "column", "mean", "sd", "low", "high", "n_seeds",
                     "n", "published", "n_scenes", "verdict"])  # fmt: skip
    for row in found["rows"]:
        for place in row["places"]:
            published = row["published"].get(place["regime"], {})
            for column, cell in place["figures"].items():
                head = [row["name"], "", place["regime"], place["dataset"], place["split"], column]
                writer.writerow([*head, *_numbers(cell), published.get(column, ""), "", ""])
        for fact, value in row["cost"].items():
            writer.writerow([row["name"], "", "", "", "", fact, value, "", "", "", len(row["seeds"]), "", "", "", ""])
    for item in found["differences"]:
        for column, cell in item["figures"].items():
            head = [item["a"], item["b"], item["regime"], item["dataset"], item["split"], column]
            writer.writerow([*head, *_numbers(cell), "", cell["n_scenes"], cell["verdict"]])
    return file.getvalue()


def _numbers(cell: dict[str, Any]) -> list[Any]:
    return [cell[name] for name in ("mean", "sd", "low", "high", "n_seeds", "n")]


def _score_lines(found: dict[str, Any], several: bool) -> Iterator[list[str]]:
    """Lines of the rows that were scored or that the paper has figures of."""
    columns = list(found["columns"])
    for row in found["rows"]:
        places = row["places"]
        seen = {place["regime"] for place in places}
        only_published = [regime for regime in row["published"] if regime not in seen]
        for position, place in enumerate(places):
            published = row["published"].get(place["regime"], {})
            cells = [_score(place["figures"][column], published.get(column)) for column in columns]
            label = row["label"] if position == 0 else ""
            yield [label, _data(place, several), *cells, str(len(row["seeds"])) if position == 0 else ""]
        for position, regime in enumerate(only_published, start=len(places)):
            figures = row["published"][regime]
            cells = [f"[{figures[column]:g}]" if column in figures else "" for column in columns]
            yield [row["label"] if position == 0 else "", REGIME[regime], *cells, "-" if position == 0 else ""]


def _cost_line(row: dict[str, Any]) -> list[str]:
    cost = row["cost"]
    millions = [f"{cost[name]:,.3f}" if cost[name] is not None else "-"
                for name in ("params_m", "activated_m", "trainable_m")]  # fmt: skip
    seconds = "-" if cost["seconds"] is None else f"{cost['seconds']:,.0f}"
    return [row["label"], *millions, seconds, ", ".join(map(str, row["seeds"]))]


def _published_cost_lines(found: dict[str, Any]) -> Iterator[list[str]]:
    """A header and a line per row of which the paper says what it costs; nothing if it says so of none."""
    rows = [row for row in found["rows"] if row["published_cost"]]
    names = list(dict.fromkeys(name for row in rows for name in row["published_cost"]))
    if names:
        yield ["Row", *names]
    for row in rows:
        yield [
            row["label"],
            *(f"{row['published_cost'][name]:g}" if name in row["published_cost"] else "-" for name in names),
        ]


def _difference_lines(found: dict[str, Any], several: bool) -> Iterator[list[str]]:
    """A header, then a line per pair of rows and column of the table; a column per place."""
    items = found["differences"]
    places = {_place(item): _data(item, several) for row in found["rows"] for item in row["places"]}
    places = {place: label for place, label in places.items() if place in set(map(_place, items))}
    yield ["A - B (seeds)", "Metric", *places.values()]
    for a, b in dict.fromkeys((item["a"], item["b"]) for item in items):
        at = {_place(item): item for item in items if (item["a"], item["b"]) == (a, b)}
        seeds = max(len(item["seeds"]) for item in at.values())
        lines = [
            [column, *(_difference(at[place]["figures"].get(column) if place in at else None) for place in places)]
            for column in found["columns"]
            if any(column in item["figures"] for item in at.values())
        ]
        labels = [f"{a} -", f"{b} ({seeds})"] if len(lines) > 1 else [f"{a} - {b} ({seeds})"]
        yield from ([label, *line] for label, line in zip_longest(labels, lines, fillvalue=""))


def _place(item: dict[str, Any]) -> tuple[str, str, str]:
    return item["regime"], item["dataset"], item["split"]


def _difference(cell: dict[str, Any] | None) -> str:
    """Mean, interval or standard deviation, and the mark of the verdict, for which there is always room."""
    if cell is None:
        return "-"
    text = tables.with_interval(cell["mean"], cell["low"], cell["high"], "+.2f")
    if cell["low"] is None and cell["sd"] is not None:
        text += f" ± {cell['sd']:.2f}"
    return f"{text} {MARK.get(cell['verdict'], ' ')}"


def _data(place: dict[str, Any], several: bool) -> str:
    return f"{REGIME.get(place['regime'], place['regime'])} {place['dataset']}{' ' + place['split'] if several else ''}"


def _score(cell: dict[str, Any], published: float | None) -> str:
    text = "-" if cell["mean"] is None else f"{cell['mean']:.2f}"
    if cell["sd"] is not None:
        text += f" ± {cell['sd']:.2f}"
    return text if published is None else f"{text} [{published:g}]"


def _notes(found: dict[str, Any]) -> list[str]:
    """What a reader must know of the figures."""
    notes = []
    places = {(place["regime"], place["dataset"], place["split"]): max(cell["n"] for cell in place["figures"].values())
              for row in found["rows"] for place in row["places"]}  # fmt: skip
    if places:
        counts = ", ".join(
            f"{REGIME[regime]} {dataset} {split} {n:,}" for (regime, dataset, split), n in places.items()
        )
        how = found["score"]
        notes.append(f"Questions: {counts}. Answers: {how['decode']}, at most {how['max_new_tokens']} tokens.")
        notes.append("Mean over seeds ± standard deviation over seeds (one seed: none).")
        notes += [f"Captions: {label}." for label in found["implementation"] if label != "equality"]
    trained = {(run["device"], run["threads"]) for row in found["rows"] for run in row["runs"] if "device" in run}
    notes += [f"Trained on {device}, {threads} threads." for device, threads in sorted(trained)]
    if any(row["published"] for row in found["rows"]):
        how = f", {found['published_by']}" if found["published_by"] else ""
        notes.append(f"[figures in brackets]: the paper's{how}.")
    if found["differences"]:
        notes += _difference_notes(found["differences"])
    return notes


def _difference_notes(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells = [cell for item in items for cell in item["figures"].values()]
    yield "Differences: the same questions and seeds in both rows. ▲ A is better, ▼ A is worse; no mark: no difference shown."
    yield "[low, high]: 95 %, 1,000 draws of whole scenes and whole seeds, the metric computed again on each."
    if any(cell["verdict"] == "too few scenes" for cell in cells):
        yield f"?: no verdict, fewer than {ENOUGH_SCENES} scenes."
    if any(cell["low"] is None for cell in cells):
        yield "Differences with ± or alone are no function of sums over answers: mean ± standard deviation over seeds."
    if left_out := sum(map(sum, (item["left_out"] for item in items))):
        yield f"{left_out:,} answers are in no difference, since another run of the pair has none."
    for item in items:
        if item["without"]:
            pair, seeds = f"{item['a']} - {item['b']}", ", ".join(map(str, item["without"]))
            yield f"{pair}, {' '.join(_place(item))}: without seed {seeds}, of which a run did not answer this set."
    if any(len(item["seeds"]) < 2 for item in items):
        yield "With one seed an interval speaks of other scenes, not of other seeds."
