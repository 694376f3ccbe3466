"""Controls: the same questions with the pictures, without them, and by a learner that has only texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from drivedistill.data.prior import template
from drivedistill.evaluate.looking import PRIOR
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.records import CLEAN, Prediction
from drivedistill.report import charts
from drivedistill.report.cells import gap_cell, none_cell
from drivedistill.report.evidence import Evidence, Probe
from drivedistill.report.markup import Html, Section, el, figure, join, missing, paragraph, table
from drivedistill.report.quality import PLACE, REGIMES, Figure, condition_gap, judged, share_right

CONTROLS = (CLEAN, "black", "none", "shuffled", PRIOR)
NAMES = {
    CLEAN: "own pictures",
    "black": "black",
    "none": "none",
    "shuffled": "another scene's",
    PRIOR: "text-only prior",
}
KINDS = 14
"""Kinds of questions that the table shows, the commonest ones."""
QUOTED = re.compile(r"'[^']*'")
"""Senna's navigation commands: with another one it is the same kind of question."""
ENOUGH = 20
"""Questions of a kind."""


def controls(evidence: Evidence) -> Section:
    """The section."""
    title = "Does it look?"
    probes = [probe for probe in evidence.probes if CLEAN in probe.answers and len(probe.answers) > 1]
    probes.sort(key=lambda probe: not _controlled(probe))
    if not probes:
        return Section("controls", title, missing("No control was asked.", "drivedistill probe RUN"))
    note = ("The same questions with the model's own pictures, with black ones, with none, with another scene's, and answered "
            "by a learner that has only the texts of the train split. A model that does not look is no better with its "
            "pictures than without.")  # fmt: skip
    heads = [_head(evidence, probe) for probe in probes]
    parts = [
        _probe(evidence, probe, head if heads.count(head) == 1 else f"{head} ({probe.folder.name})")
        for probe, head in zip(probes, heads, strict=True)
    ]
    return Section("controls", title, join([paragraph(note), *parts]))


def _controlled(probe: Probe) -> bool:
    return any(condition in probe.answers for condition in CONTROLS[1:])


def _head(evidence: Evidence, probe: Probe) -> str:
    return f"{evidence.name_of(probe.model)}{'' if _controlled(probe) else ', bad pictures'}"


def _probe(evidence: Evidence, probe: Probe, head: str) -> Html:
    answers = _common(probe, evidence.free_text)
    drawings = [drawing for regime in REGIMES if (drawing := _bars(answers, regime))]
    parts = [el("h3", head), charts.side_by_side(drawings)]
    if _controlled(probe):
        parts.append(_kinds(answers, evidence.name_of(probe.model)))
    return join(parts)


def _common(probe: Probe, free: Collection[QuestionSet]) -> dict[str, list[Prediction]]:
    """Answers that are right or wrong to the questions that were asked under every condition, in one order."""
    by_id = {name: {item.id: item for item in judged(rows, free)} for name, rows in probe.answers.items()}
    ids = sorted(set.intersection(*map(set, by_id.values())))
    return {name: [rows[id] for id in ids] for name, rows in by_id.items()}


def _bars(answers: Mapping[str, Sequence[Prediction]], regime: str) -> Html | None:
    bars = []
    for place, (name, rows) in enumerate(answers.items()):
        chosen = [item for item in rows if item.regime == regime]
        if not chosen:
            return None
        share = share_right([chosen])
        label = NAMES.get(name, name)
        bars.append(charts.Bar(label, share.value, f"{share.value:.1f} %", share.low, share.high, min(place, 1)))
        count = len(chosen)
    said = ", ".join(f"{bar.label} {bar.text}" for bar in bars)
    title = f"Right answers on {PLACE[regime]}"
    return figure(
        charts.bars({"": bars}, title=title, desc=said), f"{title}, {count:,} questions; lines: 95 % intervals."
    )


def _kinds(answers: Mapping[str, Sequence[Prediction]], name: str) -> Html:
    """The commonest kinds of questions."""
    here = [condition for condition in CONTROLS if condition in answers]
    kinds = [QUOTED.sub("'…'", template(item.question)) for item in answers[CLEAN]]
    rows: list[list[str]] = []
    for kind, count in sorted(Counter(kinds).items(), key=lambda pair: (-pair[1], pair[0])):
        if count < ENOUGH or len(rows) == KINDS:
            continue
        chosen = {c: [item for item, mine in zip(answers[c], kinds, strict=True) if mine == kind] for c in here}
        shares = [_share(share_right([chosen[condition]])) for condition in here]
        gain = gap_cell(condition_gap(chosen[CLEAN], chosen["black"])) if "black" in here else none_cell()
        rows.append([el("span", _shortened(kind), title=kind), str(count), *shares, gain])
    head = ["kind of question", "n", *(NAMES[condition] for condition in here), "own minus black"]
    return table(head, rows, f"Right answers of {name} by kind of question, %; the commonest kinds, both regimes")


def _share(figure: Figure) -> Html:
    return join([f"{figure.value:.0f}"])


def _shortened(kind: str, most: int = 90) -> str:
    text = kind.partition(" Please select")[0].partition(", based on the understanding")[0]
    text += " (options)" if "<OPTIONS>" in kind else ""
    return text if len(text) <= most else f"{text[: most - 1]}…"
