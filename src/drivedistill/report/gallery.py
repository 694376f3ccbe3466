"""Real answers: the pictures of a frame, questions about it, the reference, and what everybody answered."""

from __future__ import annotations

from collections.abc import Sequence

from drivedistill.data.prior import OBJECT
from drivedistill.report.choice import OUTCOMES, Example, choose, examples
from drivedistill.report.evidence import Evidence, ReportRow
from drivedistill.report.markup import Html, Section, el, join, missing, paragraph
from drivedistill.report.paths import shown_path
from drivedistill.report.pictures import Library, find_samples, views
from drivedistill.report.quality import PLACE
from drivedistill.report.roles import Roles, shown_rows

ROWS = 7
"""Rows whose answers are shown."""
FRAMES = 16
LONG = 600
"""Characters of an answer that are shown; a model that does not stop is not printed whole."""


def gallery(evidence: Evidence, roles: Roles, *, most: int, seed: int) -> Section:
    """The section.

    Args:
        evidence: Everything.
        roles: Who is the teacher.
        most: Questions.
        seed: Of their choice.
    """
    title = "Real answers"
    rows = shown_rows([row for row in evidence.rows if row.answered()], roles, ROWS)
    found = examples({row.name: row.answered()[0] for row in rows}, roles, evidence.free_text)
    if not found:
        what = "No question was answered by all of these runs." if rows else "No answers lie in these folders."
        return Section("answers", title, missing(what, "drivedistill predict RUN --split test"))
    chosen = choose(found, frames=FRAMES, most=most, seed=seed)
    library = find_samples(rows, chosen[0].question.split)
    frames: dict[tuple[str, str], list[Example]] = {}
    for example in sorted(chosen, key=lambda one: one.question.regime != "regular"):
        frames.setdefault(example.frame, []).append(example)
    cards = [_card(asked, rows, roles, library) for asked in frames.values()]
    parts = [paragraph(_rule(found, chosen, seed)), *_without_pictures(library, evidence), _filters(chosen), *cards]
    return Section("answers", title, join(parts))


def _rule(found: Sequence[Example], chosen: Sequence[Example], seed: int) -> str:
    return (
        f"{len(chosen)} of {len(found):,} questions that all of these models answered, drawn with seed {seed}: regular and "
        "corner, every task, and who is right take turns. Answers of the first seed of every row. ✓ right: equal to the "
        "reference, case and space aside, or the same meta-action; free text is neither right nor wrong. Marks in the "
        "pictures are the objects that a question names."
    )


def _without_pictures(library: Library, evidence: Evidence) -> list[Html]:
    """Which data are not here; a recipe's relative paths begin where its command was called."""
    if not library.missing:
        return []
    found = dict.fromkeys(f"{shown_path(item.file, evidence.roots)}: {item.found}" for item in library.missing)
    where = "Call the command from the folder in which the recipes' data lie."
    return [el("p", f"Without pictures: {'; '.join(found)}. {where}", class_="missing")]


def _filters(chosen: Sequence[Example]) -> Html:
    """What hides questions; shown by the script, since without it nothing can be hidden."""
    tasks = sorted({example.question.task for example in chosen})
    regimes = sorted({example.question.regime for example in chosen}, reverse=True)
    outcomes = [name for name in OUTCOMES if any(name in example.outcomes for example in chosen)]
    fields = [_select(name, values) for name, values in (("task", tasks), ("regime", regimes), ("outcome", outcomes))]
    button = el("button", "Show all", type="reset")
    count = el("output", f"{len(chosen)} of {len(chosen)} questions shown", aria_live="polite", id="shown")
    return el("form", *fields, button, count, id="filters", aria_label="Choose questions", hidden=True)


def _select(name: str, values: Sequence[str]) -> Html:
    options = [el("option", "all", value=""), *(el("option", value, value=value) for value in values)]
    return el("label", f"{name.capitalize()} ", el("select", *options, name=name))


def _card(asked: Sequence[Example], rows: Sequence[ReportRow], roles: Roles, library: Library) -> Html:
    first = asked[0].question
    samples = [library.samples[one.question.id] for one in asked if one.question.id in library.samples]
    pictures = [views(samples[0], [one.question for one in asked], samples)] if samples else []
    regimes = " and ".join(dict.fromkeys(PLACE[one.question.regime] for one in asked))
    head = el("h3", f"Frame {first.frame[:8]}", el("small", f" {regimes}, scene {first.scene[:8]}"))
    questions = [_question(one, rows, roles) for one in asked]
    return el(
        "article",
        head,
        el("div", *pictures, el("div", *questions, class_="questions"), class_="beside" if pictures else None),
        class_="frame",
    )


def _question(example: Example, rows: Sequence[ReportRow], roles: Roles) -> Html:
    item = example.question
    about = el("p", f"{item.task}, {item.regime}: {', '.join(example.outcomes)}", class_="about")
    lines = [el("div", el("dt", "Reference"), el("dd", with_tags(item.truth)), class_="reference")]
    for row in rows:
        label = f"{row.label}{' (teacher)' if row is roles.teacher and 'teacher' not in row.label.lower() else ''}"
        answer = el(
            "dd", _mark(example.right[row.name]), " ", with_tags(example.answers[row.name].prediction or "(nothing)")
        )
        lines.append(el("div", el("dt", label), answer))
    return el(
        "div", el("h4", with_tags(item.question)), about, el("dl", *lines), class_="question", data_task=item.task,
        data_regime=item.regime, data_outcome="|".join(example.outcomes),
    )  # fmt: skip


def _mark(right: bool | None) -> Html:
    if right is None:
        return el("span", "free text", class_="mark-free")
    return el("span", "✓ right" if right else "✗ wrong", class_="mark-right" if right else "mark-wrong")


def with_tags(text: str) -> Html:
    """A text in which `<c1,CAM_FRONT,62.5,51.0>` is short: the object's name, the rest in its title."""
    text = text if len(text) <= LONG else f"{text[:LONG]}…"
    parts: list[str] = []
    last = 0
    for found in OBJECT.finditer(text):
        camera = found[2].removeprefix("CAM_").replace("_", " ").lower()
        parts += [text[last : found.start()], el("abbr", f"{found[1]} ({camera})", title=found[0])]
        last = found.end()
    return join([*parts, text[last:]])
