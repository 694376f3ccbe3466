"""Which experts ran for regular roads and for corner cases: from `experts.json`, or else from what the training logged."""

from __future__ import annotations

import re
from collections.abc import Sequence

from drivedistill.evaluate.rows import ALL
from drivedistill.report import charts
from drivedistill.report.artefacts import ExpertComparison, Experts, Value
from drivedistill.report.cells import none_cell, number_cell
from drivedistill.report.evidence import Evidence, ReportRow
from drivedistill.report.markup import Html, Section, el, figure, join, missing, paragraph, table
from drivedistill.report.quality import PLACE, REGIMES, Figure

READING = "exp_entropy"
ABOUT = ("Effective experts: the exponential of the entropy of a token's weights, between 1 and the number of experts, mean "
         "over tokens. CLKD expects corner cases to use more of them.")  # fmt: skip


def experts(evidence: Evidence, drawn: Sequence[ReportRow]) -> Section:
    """The section; of what was only logged it shows the rows `drawn`."""
    title = "Experts, regular and corner"
    if evidence.experts:
        return Section(
            "experts", title, join([paragraph(ABOUT), *(_measured(evidence, each) for each in evidence.experts)])
        )
    logged = [row for row in drawn if _last(row)]
    if logged:
        note = " From the last tenth of each training's log, first seed, without intervals: "
        command = el("code", "drivedistill experts RUN")
        return Section("experts", title, join([paragraph(ABOUT, note, command, " measures them."), _logged(logged)]))
    return Section(
        "experts", title, missing("None of these runs has experts that were measured.", "drivedistill experts RUN")
    )


def _measured(evidence: Evidence, found: Experts) -> Html:
    whole = [item for item in found.comparisons if item.tokens == "all" and item.task == ALL]
    lines = [_line(item) for item in whole]
    name = evidence.name_of(found.model)
    head = ["layer", "questions", *(PLACE[regime] for regime in REGIMES), "difference", "corner cases use", "dead"]
    drawings = [_weights(item) for item in whole if item.dataset == ALL]
    return join([
        el("h3", name),
        table(head, lines, f"Effective experts of {name}, {found.questions:,} questions", left=2),
        charts.side_by_side(drawings),
    ])  # fmt: skip


def _line(item: ExpertComparison) -> list[str]:
    values = [_cell(item.regimes[regime].readings[READING]) if regime in item.regimes else "-" for regime in REGIMES]
    delta = item.differences.get(READING)
    dead = sum(len(part.dead) for part in item.regimes.values())
    shown = _cell(delta, "+.3f") if delta else "-"
    kind = f"{_layer(item.layer)}, {item.router}, {item.experts} experts"
    return [kind, item.dataset, *values, shown, delta.verdict if delta else "one regime only", str(dead)]


def _cell(value: Value, form: str = ".2f") -> Html:
    return none_cell() if value.value is None else number_cell(Figure(value.value, value.low, value.high), form)


def _weights(item: ExpertComparison) -> Html:
    """Mean weight of every expert, by regime."""
    groups = {}
    for expert in range(item.experts):
        groups[f"expert {expert}"] = [
            charts.Bar(regime, value.value or 0, f"{100 * (value.value or 0):.0f} %", value.low, value.high, place)
            for place, regime in enumerate(REGIMES)
            if regime in item.regimes
            for value in [item.regimes[regime].weights[expert]]
        ]
    said = "; ".join(
        f"{name}: " + ", ".join(f"{bar.label} {bar.text}" for bar in group) for name, group in groups.items()
    )
    title = f"Mean weight of every expert, {_layer(item.layer)}"
    return figure(charts.bars(groups, title=title, desc=said), f"{title}.")


def _logged(rows: Sequence[ReportRow]) -> Html:
    lines = []
    for row in rows:
        for layer, regimes in _last(row).items():
            figures = [f"{regimes[regime]:.2f}" if regime in regimes else "-" for regime in REGIMES]
            both = all(regime in regimes for regime in REGIMES)
            delta = f"{regimes['corner'] - regimes['regular']:+.3f}" if both else "-"
            lines.append([row.label, _layer(layer), *figures, delta])
    head = ["", "layer", *(PLACE[regime] for regime in REGIMES), "difference"]
    return table(head, lines, "Effective experts while learning", left=2)


def _last(row: ReportRow) -> dict[str, dict[str, float]]:
    """Layer -> regime -> effective experts, mean over the last tenth of the records that have them."""
    log = row.runs[0].log
    records = [record["experts"] for record in log if isinstance(record.get("experts"), dict)]
    last = records[-max(1, len(records) // 10) :] if records else []
    found: dict[str, dict[str, list[float]]] = {}
    for record in last:
        for layer, regimes in record.items():
            for regime, reading in regimes.items():
                found.setdefault(layer, {}).setdefault(regime, []).append(float(reading[READING]))
    return {
        layer: {regime: sum(values) / len(values) for regime, values in regimes.items()}
        for layer, regimes in found.items()
    }


def _layer(name: str) -> str:
    """`language_model.encoder.block.0....` to `encoder 0`."""
    block = re.search(r"(encoder|decoder)\.block\.(\d+)", name)
    return f"{block[1]} {block[2]}" if block else name
