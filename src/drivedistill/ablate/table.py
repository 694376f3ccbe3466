"""A table for people (Markdown, also what is printed) and for spreadsheets (CSV, one figure per line)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from drivedistill.ablate.card import COLUMNS
from drivedistill.ablate.differences import SAMPLE_WISE

REGIME = {"regular": "R", "corner": "C"}


def markdown(found: dict[str, Any]) -> str:
    """The page `table.md` of what `results.tabulate` found.

    Each row has a line per place, regular ones (R) before corner ones (C), as CLKD's Table II. A figure is the mean over
    seeds, then the standard deviation over seeds, then the paper's figure in brackets.
    """
    several = len({place["split"] for row in found["rows"] for place in row["places"]}) > 1
    parts = [f"# {found['name']}", found["about"].strip()]
    scored = [row for row in found["rows"] if row["places"] or row["published"]]
    if scored:
        parts.append(_lines([["Row", "Data", *found["columns"], "runs"], *_score_lines(found, several)]))
    costs = [_cost_line(row) for row in found["rows"] if row["seeds"]]
    if costs:
        header = ["Row", "parameters (M)", "activated (M)", "trainable (M)", "training (s)", "seeds"]
        parts += ["## What the models cost", _lines([header, *costs], left=1)]
    if found["differences"]:
        lines = [_difference_line(item, list(found["columns"]), several) for item in found["differences"]]
        header = ["A - B", "Data", *found["columns"], "seeds"]
        parts += ["## Differences", _lines([header, *lines])]
    missing = [f"* {row['label']}, seed {run['seed']}: {run['state']}" for row in found["rows"] for run in row["runs"]
               if run["state"] != "done"]  # fmt: skip
    if missing:
        parts += ["## Not in the table", "\n".join(missing)]
    return "\n\n".join([*parts, "\n".join(f"{note}  " for note in _notes(found)).rstrip()]).rstrip() + "\n"


def csv_text(found: dict[str, Any]) -> str:
    """`table.csv`: one figure per line."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "minus", "regime", "dataset", "split", "column", "mean", "sd", "low", "high", "n_seeds",
                     "n", "published"])  # fmt: skip
    for row in found["rows"]:
        for place in row["places"]:
            published = row["published"].get(place["regime"], {})
            for column, cell in place["figures"].items():
                head = [row["name"], "", place["regime"], place["dataset"], place["split"], column]
                writer.writerow([*head, cell["mean"], cell["sd"], "", "", cell["n_seeds"], cell["n"],
                                 published.get(column, "")])  # fmt: skip
        for fact, value in row["cost"].items():
            writer.writerow([row["name"], "", "", "", "", fact, value, "", "", "", len(row["seeds"]), "", ""])
    for item in found["differences"]:
        for column, cell in item["figures"].items():
            head = [item["a"], item["b"], item["regime"], item["dataset"], item["split"], column]
            writer.writerow(
                [*head, cell["mean"], cell["sd"], cell["low"], cell["high"], cell["n_seeds"], cell["n"], ""]
            )
    return file.getvalue()


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


def _difference_line(item: dict[str, Any], columns: Sequence[str], several: bool) -> list[str]:
    cells = []
    for column in columns:
        cell = item["figures"].get(column)
        text = "-" if cell is None else f"{cell['mean']:+.2f}"
        if cell is not None and cell["low"] is not None:
            text += f" [{cell['low']:+.2f}, {cell['high']:+.2f}]"
        elif cell is not None and cell["sd"] is not None:
            text += f" ± {cell['sd']:.2f}"
        cells.append(text)
    return [f"{item['a']} - {item['b']}", _data(item, several), *cells, ", ".join(map(str, item["seeds"]))]


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
    places = {(place["regime"], place["dataset"], place["split"]): next(iter(place["figures"].values()))["n"]
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
        notes.append("[figures in brackets]: the paper's.")
    if found["differences"]:
        sample_wise = [name for name in found["columns"] if COLUMNS[name] in SAMPLE_WISE]
        corpus = [name for name in found["columns"] if COLUMNS[name] not in SAMPLE_WISE]
        notes.append(
            f"Differences, the same questions and seeds in both rows. {', '.join(sample_wise)}: mean and 95 % interval, 1,000 "
            f"draws of whole scenes and whole seeds. {', '.join(corpus)}: properties of a set of answers; mean ± standard "
            "deviation over seeds, no interval."
        )
        if any(len(item["seeds"]) < 2 for item in found["differences"]):
            notes.append("With one seed an interval speaks of other scenes, not of other seeds.")
    return notes


def _lines(lines: Sequence[Sequence[str]], left: int = 2) -> str:
    """A Markdown table whose columns are also straight in a terminal; all but the first `left` end at the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = []
    for line in lines:
        first = [cell.ljust(width) for cell, width in zip(line[:left], widths[:left], strict=True)]
        rest = [cell.rjust(width) for cell, width in zip(line[left:], widths[left:], strict=True)]
        made.append(f"| {' | '.join([*first, *rest])} |")
    rule = ["-" * width for width in widths[:left]] + ["-" * (width - 1) + ":" for width in widths[left:]]
    return "\n".join([made[0], f"| {' | '.join(rule)} |", *made[1:]])
