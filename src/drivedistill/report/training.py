"""What happened while the runs learnt: alpha and losses over the steps, and what was mined; made from `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drivedistill.progress import counted
from drivedistill.report import charts
from drivedistill.report.evidence import ReportRow
from drivedistill.report.markup import Html, Section, el, figure, join, missing, paragraph, table
from drivedistill.report.roles import Roles

DISTANCES = {
    "forward_kl": "KL divergence",
    "reverse_kl": "reverse KL divergence",
    "jensen_shannon": "Jensen-Shannon divergence",
}
CURVES = {
    "alpha": ("α, the weight of the teacher", "alpha"),
    "alpha_corner": ("α on corner cases", "alpha"),
    "ce": ("Loss on the references", "cross-entropy"),
    "h2g": ("Loss on what was mined", "cross-entropy, hardest tokens"),
    **{key: ("Distance to the teacher", name) for key, name in DISTANCES.items()},
    **{f"{key}_corner": ("Distance to the teacher, corner cases' part", name) for key, name in DISTANCES.items()},
    "validation_loss": ("Loss on the validation split", "validation loss"),
}
"""What is drawn where it was logged: caption, name of the axis."""
UNITS = {
    "tokens": "nats per token",
    "samples": "nats per token, mean over samples",
    "sqrt": "nats per token, samples weighed by the root of their tokens",
}
"""Of a loss, by the recipe's `train.reduction`."""
WIDE = 10
"""A loss whose largest value is so many times its smallest is drawn logarithmically."""
POINTS = 80
"""A longer curve is drawn by the means of so many parts."""


def training(rows: Sequence[ReportRow], teacher: ReportRow | None, hidden: int) -> Section:
    """Alpha and losses; the teacher, which learnt for longer, in charts of its own.

    Args:
        rows: Those that are drawn.
        teacher: One of them.
        hidden: How many others there are.
    """
    title = "Learning"
    series = {row.label: place for place, row in enumerate(rows)}
    students = [row for row in rows if row is not teacher]
    drawings = [drawing for key in CURVES if (drawing := _drawing(students or rows, key, series))]
    own = [drawing for key in CURVES if teacher and (drawing := _drawing([teacher], key, series))] if students else []
    undrawn = _undrawn(rows)
    if not drawings and not own:
        remedy = "drivedistill distill RECIPE --out RUN"
        nothing = missing("No metrics.jsonl of a training lies in these folders.", remedy)
        return Section("training", title, join(undrawn or [nothing]))
    more = f" {counted(hidden, 'more row')} of the table {'is' if hidden == 1 else 'are'} not drawn." if hidden else ""
    note = "The first seed of every row. α is how much the teacher counts beside the references; it falls where it is "
    note += f"released. Validation is each row's own.{more}"
    learnt = {row.label for row in rows if any(len(_records(row, key)) > 1 for key in CURVES)}
    names = {label: place for label, place in series.items() if label in learnt}
    parts = [
        paragraph(note),
        charts.legend(names),
        charts.side_by_side(drawings),
        *_distances(students or rows),
        *undrawn,
    ]
    if own:
        parts += [el("h3", f"The teacher's own training: {teacher.label if teacher else ''}"), charts.side_by_side(own)]
    return Section("training", title, join(parts))


def _distances(rows: Sequence[ReportRow]) -> list[Html]:
    """What the distance of a row is not, where it cannot be read as the others'."""
    unheard = {"regular": "corner cases", "trusted": "samples that the teacher does not understand"}
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.recipe is None or not any(_records(row, key) for key in DISTANCES):
            continue
        if (on := row.recipe.distill.on) in unheard:
            less = "but are counted, so that it looks smaller than one over all rows"
            said.setdefault((f"Rows of {unheard[on]} add nothing to the distance of", less), []).append(row.label)
        if on == "mined":
            mean = "is the mean over what was mined, the hardest"
            said.setdefault(("The distance of", mean), []).append(row.label)
        if any(_records(row, f"{key}_corner") for key in DISTANCES):
            whole = "is the sum of two, logged apart: regular and corner cases (a part whose α is 0 adds nothing)"
            said.setdefault(("The distance of", whole), []).append(row.label)
    text = " ".join(f"{before} {', '.join(labels)} {after}." for (before, after), labels in said.items())
    return [el("p", text, class_="note")] if said else []


def _undrawn(rows: Sequence[ReportRow]) -> list[Html]:
    """What was recorded a single time, in words: one point is no curve."""
    said = []
    for row in rows:
        nothing = row.runs[0].facts.steps == 0
        once = [
            (caption, *records[0]) for key, (caption, _) in CURVES.items() if len(records := _records(row, key)) == 1
        ]
        figures = "; ".join(
            f"{caption[0].lower()}{caption[1:]} {value:.3g}{'' if nothing else f' at step {step:.0f}'}"
            for caption, step, value in once
        )
        what = "learnt nothing in its run (0 steps)" if nothing else "recorded once, which makes no curve"
        if nothing or figures:
            said.append(f"{row.label} {what}{f': {figures}' if figures else ''}.")
    return [el("p", " ".join(said), class_="note")] if said else []


def _records(row: ReportRow, key: str) -> list[tuple[float, float]]:
    """The steps of the first run at which something was recorded, and what; of a distance in two parts, their sum."""
    keys = (key, f"{key}_corner") if key in DISTANCES else (key,)
    found = []
    for record in row.runs[0].log:
        values = [float(record[part]) for part in keys if isinstance(record.get(part), int | float)]
        if values and isinstance(record.get("step"), int):
            found.append((float(record["step"]), sum(values)))
    return found


def _drawing(rows: Sequence[ReportRow], key: str, series: Mapping[str, int]) -> Html | None:
    curves = []
    units: dict[str, list[str]] = {}
    for row in rows:
        pairs = _thinned(_records(row, key))
        if len(pairs) > 1:
            curves.append(
                charts.Curve(row.label, [step for step, _ in pairs], [value for _, value in pairs], series[row.label])
            )
            units.setdefault(UNITS[row.recipe.train.reduction] if row.recipe else "nats", []).append(row.label)
    if not curves:
        return None
    caption, label = CURVES[key]
    said = "; ".join(f"{curve.name}: from {curve.ys[0]:.3g} to {curve.ys[-1]:.3g}" for curve in curves)
    lowest, highest = (end(value for curve in curves for value in curve.ys) for end in (min, max))
    wide = not key.startswith("alpha") and lowest > 0 and highest > WIDE * lowest
    drawing = charts.lines(
        curves,
        title=caption,
        desc=said,
        x_label="optimizer step",
        y_label=f"{label}{' (log)' if wide else ''}",
        log_y=wide,
    )
    return figure(drawing, f"{caption}{'' if key.startswith('alpha') else _unit(units)}.")


def _unit(units: Mapping[str, Sequence[str]]) -> str:
    """The unit of all curves, or whose is which: numbers of other units are not to be compared."""
    if len(units) == 1:
        return f", {next(iter(units))}"
    return "; not one unit: " + "; ".join(f"{unit} ({', '.join(labels)})" for unit, labels in units.items())


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS`, each the mean of its neighbours; the ends keep their steps."""
    if len(pairs) <= POINTS:
        return pairs
    parts = [pairs[i * len(pairs) // POINTS : (i + 1) * len(pairs) // POINTS] for i in range(POINTS)]
    means = [(part[len(part) // 2][0], sum(value for _, value in part) / len(part)) for part in parts]
    return [(pairs[0][0], means[0][1]), *means[1:-1], (pairs[-1][0], means[-1][1])]


def mined(rows: Sequence[ReportRow], roles: Roles) -> Section:
    """What mining picked; the kinds of the row with all parts, or else of the first that mines."""
    title = "What was mined"
    found = {row.label: notes for row in rows if (notes := _mined(row))}
    if not found:
        remedy = "drivedistill distill RECIPE mining.samples=50"
        return Section("mined", title, missing("None of these runs mines hard samples and tokens (H2G).", remedy))
    lines = [[label, *_mined_cells(notes)] for label, notes in found.items()]
    head = ["", "samples", "tokens", "corner cases, mined", "in the pool", "loss, mined", "in the pool"]
    note = ("Mining works as meant where more of the mined samples than of the pool are corner cases, and chases noise where "
            "coordinates and ids crowd the mined tokens. Means over the whole training.")  # fmt: skip
    whose = roles.full.label if roles.full and roles.full.label in found else next(iter(found))
    parts = [
        paragraph(note),
        table(head, lines, "Shares in percent, losses in nats per token"),
        _kinds(whose, found[whose]),
    ]
    return Section("mined", title, join(parts))


def _mined(row: ReportRow) -> list[Mapping[str, Any]]:
    return [record["mined"] for run in row.runs for record in run.log if isinstance(record.get("mined"), dict)]


def _mined_cells(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [
        100 * sum(note[part] for note in notes) / max(1, sum(note[f"of_{part}"] for note in notes))
        for part in ("samples", "tokens")
    ]
    corner = [100 * value for value in _pair(notes, "corner_share")]
    return [*(f"{value:.1f}" for value in (*shares, *corner)), *(f"{value:.2f}" for value in _pair(notes, "mean_loss"))]


def _pair(notes: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """Mean over the records of what was mined, and of the pool."""
    first, second = zip(*(note[key] for note in notes), strict=True)
    return sum(first) / len(first), sum(second) / len(second)


def _kinds(label: str, notes: Sequence[Mapping[str, Any]]) -> Html:
    """Bars for whatever was counted by kind: tokens, and questions where they are logged."""
    captions = {"kinds": "Kinds of tokens", "templates": "Kinds of questions"}
    drawings = []
    for key in [key for key, value in notes[0].items() if isinstance(value, dict)]:
        names = dict.fromkeys(name for note in notes for name in note.get(key, {}))
        groups = {}
        for name in names:
            pair = _pair([note[key] for note in notes if name in note.get(key, {})], name)
            groups[name] = [
                charts.Bar(side, 100 * value, f"{100 * value:.1f} %", series=place)
                for place, (side, value) in enumerate(zip(("mined", "pool"), pair, strict=True))
            ]
        said = "; ".join(
            f"{name}: {group[0].text} of the mined, {group[1].text} of the pool" for name, group in groups.items()
        )
        caption = f"{captions.get(key, key)}, {label}"
        drawings.append(figure(charts.bars(groups, title=caption, desc=said), f"{caption}."))
    return charts.side_by_side(drawings) if drawings else el("p")
