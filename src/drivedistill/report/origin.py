"""How it was made: what is needed to make it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import drivedistill
from drivedistill.report.artefacts import Machine
from drivedistill.report.evidence import Evidence, ReportRow, Run
from drivedistill.report.markup import Html, Section, el, join, paragraph, table
from drivedistill.report.paths import shown_command, shown_path, shown_tree


def origin(evidence: Evidence) -> Section:
    """The section."""
    parts = [
        paragraph(
            f"This page was made by drivedistill {drivedistill.__version__} from the files that the commands below "
            "left behind; the same files give the same page. Of paths elsewhere it shows the names alone."
        )
    ]
    if evidence.rows:
        head = ["", "seeds", "M parameters", "active", "steps", "minutes", "device", "threads", "finished"]
        parts.append(table(head, map(_cost, evidence.rows), "The trainings"))
    parts += [_data(evidence), _versions(evidence), _commands(evidence)]
    parts += [_recipe(row, evidence.roots) for row in evidence.rows]
    return Section("origin", "How it was made", join(parts))


def _cost(row: ReportRow) -> list[str]:
    facts = row.runs[0].facts
    seeds = ", ".join("-" if seed is None else str(seed) for seed in row.seeds)
    minutes = [run.facts.seconds / 60 for run in row.runs if run.facts.seconds is not None]
    return [
        row.label,
        seeds,
        "-" if facts.params_m is None else f"{facts.params_m:.3f}",
        "-" if facts.activated_m is None else f"{facts.activated_m:.3f}",
        "-" if facts.steps is None else f"{facts.steps:,}",
        f"{sum(minutes) / len(minutes):.1f}" if minutes else "-",
        facts.device or "-",
        "-" if facts.threads is None else str(facts.threads),
        (facts.finished or "-")[:10],
    ]


def _data(evidence: Evidence) -> Html:
    sources = {
        (source.name, source.format, source.regime, str(source.root)): source.root
        for row in evidence.rows
        if row.recipe is not None
        for source in row.recipe.data.sources
    }
    if not sources:
        return Html("")
    lines = [
        [*key[:3], el("code", shown_path(key[3], evidence.roots)), *_manifest(root)] for key, root in sources.items()
    ]
    return table(["source", "format", "regime", "folder", "made by", "data hash"], lines, "The data", left=6)


def _manifest(root: Path) -> list[str]:
    """Generator and hash that a data folder, or the one above it, says of itself."""
    for folder in (root, root.parent):
        try:
            found: Any = json.loads((folder / "manifest.json").read_text("utf-8"))
        except (OSError, ValueError):  # other people's data have none, or are not on this machine
            continue
        if isinstance(found, dict) and "data_hash" in found:
            made = f"{found.get('generator', '')} {found.get('version', '')}, {found.get('keyframes', '?')} key frames"
            return [f"{made}, seed {found.get('seed', '?')}", el("code", str(found["data_hash"])[:16])]
    return ["-", "-"]


def _machines(evidence: Evidence) -> Iterator[Machine]:
    yield from (run.facts for row in evidence.rows for run in row.runs)
    yield from (bench.setting.machine for bench in evidence.benches)


def _versions(evidence: Evidence) -> Html:
    said = []
    for machine in _machines(evidence):
        versions = [f"{name} {version}" for name, version in machine.versions.items()]
        commit = [f"commit {machine.git_commit[:12]}"] if machine.git_commit else []
        if versions:
            said.append(", ".join([*versions, *commit, machine.device]))
    found = list(dict.fromkeys(said))
    return el("ul", *(el("li", text) for text in found)) if found else Html("")


def _commands(evidence: Evidence) -> Html:
    made = [machine.command for machine in _machines(evidence) if machine.command]
    commands = list(dict.fromkeys(shown_command(text, evidence.roots) for text in made))
    if not commands:
        return Html("")
    text = el("pre", el("code", "\n".join(commands)), tabindex="0")
    return el("details", el("summary", f"Commands ({len(commands)})"), text)


def _recipe(row: ReportRow, roots: Sequence[Path]) -> Html:
    run: Run = row.runs[0]
    if run.recipe is None:
        return Html("")
    tree = shown_tree(run.recipe.model_dump(mode="json"), roots)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return el("details", el("summary", f"Recipe of {row.label}"), el("pre", el("code", text), tabindex="0"))
