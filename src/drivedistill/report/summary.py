"""The first three sentences, made from the numbers: how much faster, how good, and whether the model looks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from drivedistill.evaluate.looking import PRIOR
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.records import CLEAN, Prediction
from drivedistill.report.artefacts import BenchModel, Value
from drivedistill.report.evidence import Evidence, Probe, ReportRow
from drivedistill.report.markup import Html, Section, el, join
from drivedistill.report.paths import shown_path, shown_text
from drivedistill.report.quality import PLACE, REGIMES, Figure, condition_gap, gap, in_words, judged, right, share_right
from drivedistill.report.recovered import NOTHING_LOST, recovered
from drivedistill.report.roles import Roles

Pair = tuple[BenchModel, BenchModel, Value]
"""A benched model, another one, and how many times as fast the other one is."""


def summary(evidence: Evidence, roles: Roles) -> Section:
    """The section: three sentences, and what else there is to say in a list below."""
    sentences = (faster(evidence, roles), quality(evidence, roles), looking(evidence, roles))
    body = [el("ol", *(el("li", text) for text in sentences), class_="lead")]
    if more := [
        *_fastest(evidence, roles),
        *_regained(evidence, roles),
        *_against(evidence, roles),
        *_looked(evidence, roles),
    ]:
        body += [el("h3", "More exactly"), el("ul", *(el("li", text) for text in more))]
    return Section("summary", "In three sentences", join(body))


def faster(evidence: Evidence, roles: Roles) -> Html | str:
    """How much faster end to end."""
    pairs = list(_speeds(evidence))
    if not pairs:
        return _open("How much faster it is was not measured: ", "drivedistill bench TEACHER STUDENT", " does it.")
    first, model, ratio = _leading(pairs, evidence, roles)
    text = _pace(evidence, first, model, ratio)
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        names = [evidence.name_of(each.model) for each in (model, first)]
        text = f"No difference in speed is shown between {names[0]} and {names[1]} ({text})"
    times = f"median {model.latency_p50_ms:.1f} ms instead of {first.latency_p50_ms:.1f} ms"
    threads = f"{model.threads} thread{'s' if model.threads > 1 else ''}"
    return f"{text}, from the pictures on disk to the last word ({times}; {model.device}, {threads})."


def _leading(pairs: list[Pair], evidence: Evidence, roles: Roles) -> Pair:
    """The pair with the subject, or else the first one."""
    mine = [pair for pair in pairs if roles.subject is not None and evidence.row_of(pair[1].model) is roles.subject]
    return (mine or pairs)[0]


def _pace(evidence: Evidence, first: BenchModel, model: BenchModel, ratio: Value) -> str:
    assert ratio.value is not None
    times = Figure(ratio.value, ratio.low, ratio.high).text(".2f")
    return f"{evidence.name_of(model.model)} answers {times} times as fast as {evidence.name_of(first.model)}"


def _fastest(evidence: Evidence, roles: Roles) -> Iterator[str]:
    """Who is shown to be faster still than the first sentence says, against the same model in the same bench."""
    if pairs := list(_speeds(evidence)):
        first, said, ratio = _leading(pairs, evidence, roles)
        beyond = max(1.0, ratio.high or ratio.value or 0.0)  # the interval's end, where it has one
        others = [
            pair
            for pair in pairs
            if pair[0] is first
            and pair[1] is not said
            and (pair[2].low or 0.0) > beyond
            and (roles.subject is None or evidence.row_of(pair[1].model) is not roles.subject)
        ]
        for _, model, more in sorted(others, key=lambda pair: pair[2].value or 0.0)[-1:]:
            yield f"{_pace(evidence, first, model, more)}, faster still (median {model.latency_p50_ms:.1f} ms)."


def _open(before: str, command: str, after: str) -> Html:
    """A question that nobody asked yet."""
    return join([before, el("code", command), after])


def _speeds(evidence: Evidence) -> Iterator[Pair]:
    """Models with the one that they are compared with, and how many times as fast they are."""
    for bench in evidence.benches:
        by_name = {model.name: model for model in bench.models}
        for model in bench.models:
            if model.speed_disk and model.speed_disk.value is not None and model.against in by_name:
                yield by_name[model.against], model, model.speed_disk


def quality(evidence: Evidence, roles: Roles) -> Html | str:
    """What is won over plain distillation, or else over no distillation; the mere share where there is neither."""
    row, shares = roles.subject, _shares(evidence, roles)
    if row is None or not shares:
        return _open("How good it is is not known: ", "drivedistill predict RUN --split test", " asks it.")
    absent = ""
    if roles.absent and roles.teacher is None:
        absent = f" Its teacher, {shown_path(roles.absent, evidence.roots)}, is not among these runs."
    rival, what = next(iter(_rivals(roles)), (None, ""))
    if rival is None:
        text = " and ".join(f"{figure.text()} % right on {PLACE[regime]}" for regime, figure in shares.items())
        return f"Of the questions that have one right answer, {row.label} answers {text}.{absent}"
    return f"Right answers to the questions that have one right answer: {_beside(evidence, row, rival, what, shares)}.{absent}"


def _rivals(roles: Roles) -> list[tuple[ReportRow, str]]:
    """With whom the subject is compared, the most telling one first."""
    rivals = [(roles.plain, "plain distillation"), (roles.student, "no distillation"), (roles.teacher, "its teacher")]
    return [(rival, what) for rival, what in rivals if rival and rival is not roles.subject and rival.answered()]


def _shares(evidence: Evidence, roles: Roles) -> dict[str, Figure]:
    """The subject's share of right answers by regime, where it has any."""
    row = roles.subject
    own = {regime: right(row, regime, evidence.free_text) for regime in REGIMES} if row else {}
    return {regime: figure for regime, figure in own.items() if figure is not None}


def _beside(evidence: Evidence, row: ReportRow, rival: ReportRow, what: str, regimes: Iterable[str]) -> str:
    gaps = [f"on {PLACE[regime]} {in_words(gap(row, rival, regime, evidence.free_text))}" for regime in regimes]
    return f"{row.label} against {what}, {rival.label}: {'; '.join(gaps)}"


def _against(evidence: Evidence, roles: Roles) -> Iterator[str]:
    """What the second sentence leaves out: the shares themselves, and the other comparisons."""
    row, shares = roles.subject, _shares(evidence, roles)
    rivals = _rivals(roles)
    if row is None or not shares or not rivals:
        return
    figures = [f"{figure.text()} % on {PLACE[regime]}" for regime, figure in shares.items()]
    yield f"{row.label} answers right: {' and '.join(figures)}."
    yield from (f"{_beside(evidence, row, rival, what, shares)}." for rival, what in rivals[1:])


def _regained(evidence: Evidence, roles: Roles) -> Iterator[str]:
    """The share of the plain student's loss against the teacher that distillation wins back on regular roads."""
    row = roles.full or roles.plain
    if row is None or roles.student is None or roles.teacher is None:
        return
    found = recovered(row, roles.student, roles.teacher, "regular", evidence.free_text)
    against = f"against its teacher on {PLACE['regular']}"
    if found == NOTHING_LOST:
        yield f"{roles.student.label}, the plain student, loses nothing measurable, so there is nothing to recover ({against})."
    elif isinstance(found, str):
        yield f"How much {row.label} recovers of what the plain student loses {against} is not known: {found}."
    else:
        yield f"{row.label} {_share_of_loss(found)} of what {roles.student.label}, the plain student, loses {against}."


def _share_of_loss(found: Figure) -> str:
    """`recovers 40 [10, 70] %`, or `loses another`; where the interval covers zero, neither is shown."""
    verb = "recovers"
    if found.value < 0:
        low, high = (None if end is None else -end for end in (found.high, found.low))
        verb, found = "loses another", Figure(-found.value, low, high)
    text = f"{verb} {found.text('.0f')} %"
    if found.low is None or found.high is None:
        return f"{text} (without an interval)"
    return f"{text} (no difference shown)" if found.low <= 0 <= found.high else text


def looking(evidence: Evidence, roles: Roles) -> Html | str:
    """Whether it looks: with its pictures and with black ones."""
    probe = _probe(evidence, roles)
    if probe is None:
        asks = " shows it black pictures, and asks the text-only prior."
        return _open("Whether it looks was not asked: ", "drivedistill probe RUN", asks)
    name, parts = evidence.name_of(probe.model), []
    for regime in REGIMES:
        if sides := _sides(probe, regime, evidence.free_text):
            seen = condition_gap(sides[CLEAN], sides["black"])
            looks = seen.low is not None and seen.low > 0 and seen.num_scenes >= ENOUGH_SCENES
            parts.append(f"{'looks' if looks else 'is not shown to look'} on {PLACE[regime]} ({in_words(seen)})")
    if not parts:
        return f"Whether {name} looks cannot be said: no answer of it can be right."
    return f"With its own pictures instead of black ones, {name} {' and '.join(parts)}."


def _probe(evidence: Evidence, roles: Roles) -> Probe | None:
    """That of the subject, or else the first one with black pictures."""
    probes = [probe for probe in evidence.probes if {CLEAN, "black"} <= probe.answers.keys()]
    return next((each for each in probes if evidence.row_of(each.model) is roles.subject), next(iter(probes), None))


def _sides(probe: Probe, regime: str, free: Collection[QuestionSet]) -> dict[str, list[Prediction]]:
    """Condition -> answers to the questions that were asked under all of them; empty where nothing can be right."""
    chosen = {
        condition: {item.id: item for item in judged(rows, free) if item.regime == regime}
        for condition, rows in probe.answers.items()
        if condition in (CLEAN, "black", PRIOR)
    }
    ids = sorted(set.intersection(*map(set, chosen.values())))
    return {condition: [rows[id] for id in ids] for condition, rows in chosen.items()} if ids else {}


def _looked(evidence: Evidence, roles: Roles) -> Iterator[str]:
    """The shares behind the third sentence, and what can be had without a model that sees."""
    probe = _probe(evidence, roles)
    for regime in REGIMES if probe else ():
        if probe and (sides := _sides(probe, regime, evidence.free_text)):
            shares = {condition: f"{share_right([rows]).value:.1f} %" for condition, rows in sides.items()}
            text = f"{evidence.name_of(probe.model)} on {PLACE[regime]}: {shares[CLEAN]} right with its pictures, "
            text += f"{shares['black']} with black ones"
            if PRIOR in sides:
                beside = in_words(condition_gap(sides["black"], sides[PRIOR]))
                text += f", where the text-only prior has {shares[PRIOR]} (black minus prior: {beside})"
            yield f"{text}."


def lead(evidence: Evidence) -> Html:
    """What the table says it is about."""
    return el("p", shown_text(evidence.about, evidence.roots), class_="about") if evidence.about else Html("")
