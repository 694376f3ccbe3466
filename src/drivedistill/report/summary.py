"""The first three sentences, made from the numbers: how much faster, how good, and whether the model looks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from drivedistill.evaluate.looking import PRIOR
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.records import CLEAN
from drivedistill.report.artefacts import BenchModel, Value
from drivedistill.report.evidence import Evidence, Probe
from drivedistill.report.markup import Html, Section, el, join
from drivedistill.report.quality import PLACE, REGIMES, Figure, condition_gap, gap, in_words, judged, right, share_right
from drivedistill.report.roles import Roles


def summary(evidence: Evidence, roles: Roles) -> Section:
    """The section."""
    sentences = (faster(evidence, roles), quality(evidence, roles), looking(evidence, roles))
    return Section("summary", "In three sentences", el("ol", *(el("li", text) for text in sentences), class_="lead"))


def faster(evidence: Evidence, roles: Roles) -> Html | str:
    """How much faster end to end."""
    pairs = list(_speeds(evidence))
    if not pairs:
        return _open("How much faster it is was not measured: ", "drivedistill bench TEACHER STUDENT", " does it.")
    mine = [pair for pair in pairs if roles.subject is not None and evidence.row_of(pair[1].model) is roles.subject]
    first, model, ratio = (mine or pairs)[0]
    names = [evidence.name_of(each.model) for each in (model, first)]
    assert ratio.value is not None
    text = f"{names[0]} answers {Figure(ratio.value, ratio.low, ratio.high).text('.2f')} times as fast as {names[1]}"
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        text = f"No difference in speed is shown between {names[0]} and {names[1]} ({text})"
    times = f"median {model.latency_p50_ms:.1f} ms instead of {first.latency_p50_ms:.1f} ms"
    threads = f"{model.threads} thread{'s' if model.threads > 1 else ''}"
    return f"{text}, from the pictures on disk to the last word ({times}; {model.device}, {threads})."


def _open(before: str, command: str, after: str) -> Html:
    """A question that nobody asked yet."""
    return join([before, el("code", command), after])


def _speeds(evidence: Evidence) -> Iterator[tuple[BenchModel, BenchModel, Value]]:
    """Models with the one that they are compared with, and how many times as fast they are."""
    for bench in evidence.benches:
        by_name = {model.name: model for model in bench.models}
        for model in bench.models:
            if model.speed_disk and model.speed_disk.value is not None and model.against in by_name:
                yield by_name[model.against], model, model.speed_disk


def quality(evidence: Evidence, roles: Roles) -> Html | str:
    """What is kept or lost against the teacher, and what is won over plain distillation."""
    row = roles.subject
    own = {regime: right(row, regime, evidence.free_text) for regime in REGIMES} if row else {}
    known = {regime: figure for regime, figure in own.items() if figure is not None}
    if row is None or not known:
        return _open("How good it is is not known: ", "drivedistill predict RUN --split test", " asks it.")
    shares = " and ".join(f"{figure.text()} % of those about {PLACE[name]}" for name, figure in known.items())
    text = f"Of the questions that have one right answer, {row.label} answers {shares} right"
    rivals = [(roles.teacher, "its teacher"), (roles.plain, "plain distillation"), (roles.student, "no distillation")]
    found = [
        f"against {what}, {rival.label}: "
        + " and ".join(
            f"{in_words(gap(row, rival, regime, evidence.free_text))} on {PLACE[regime]}" for regime in known
        )
        for rival, what in rivals
        if rival is not None and rival is not row
    ]
    absent = f" Its teacher, {roles.absent}, is not among these runs." if roles.absent and roles.teacher is None else ""
    return f"{'; '.join([text, *found])}.{absent}"


def looking(evidence: Evidence, roles: Roles) -> Html | str:
    """Whether it looks: with its pictures, with black ones, and what can be had without a model that sees."""
    probes = [probe for probe in evidence.probes if {CLEAN, "black"} <= probe.answers.keys()]
    if not probes:
        asks = " shows it black pictures, and asks the text-only prior."
        return _open("Whether it looks was not asked: ", "drivedistill probe RUN", asks)
    probe = next((each for each in probes if evidence.row_of(each.model) is roles.subject), probes[0])
    name = evidence.name_of(probe.model)
    parts = [part for regime in REGIMES if (part := _looks(probe, name, regime, evidence.free_text))]
    return f"{'; '.join(parts)}." if parts else f"Whether {name} looks cannot be said: no answer of it can be right."


def _looks(probe: Probe, name: str, regime: str, free: Collection[QuestionSet]) -> str:
    """One regime's part of the sentence; empty where nothing can be right."""
    chosen = {
        condition: {item.id: item for item in judged(rows, free) if item.regime == regime}
        for condition, rows in probe.answers.items()
        if condition in (CLEAN, "black", PRIOR)
    }
    ids = sorted(set.intersection(*map(set, chosen.values())))
    if not ids:
        return ""
    sides = {condition: [rows[id] for id in ids] for condition, rows in chosen.items()}
    shares = {condition: f"{share_right([rows]).value:.1f} %" for condition, rows in sides.items()}
    seen = condition_gap(sides[CLEAN], sides["black"])
    looks = seen.low is not None and seen.low > 0 and seen.num_scenes >= ENOUGH_SCENES
    text = f"{name} {'looks' if looks else 'is not shown to look'} on {PLACE[regime]}: {shares[CLEAN]} right with its"
    text += f" pictures, {shares['black']} with black ones ({in_words(seen)})"
    if PRIOR in sides:
        beside = in_words(condition_gap(sides["black"], sides[PRIOR]))
        text += f", where the text-only prior has {shares[PRIOR]} (black minus prior: {beside})"
    return text


def lead(evidence: Evidence) -> Html:
    """What the table says it is about."""
    return el("p", evidence.about, class_="about") if evidence.about else Html("")
