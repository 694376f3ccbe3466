"""Quality against latency, and what is right in time: made from `bench.json`."""

from __future__ import annotations

from drivedistill.evaluate.realtime import THRESHOLDS_MS
from drivedistill.report import charts
from drivedistill.report.artefacts import Bench, BenchModel, Value
from drivedistill.report.cells import none_cell, number_cell
from drivedistill.report.evidence import Evidence
from drivedistill.report.markup import Html, Section, el, figure, join, missing, paragraph, table
from drivedistill.report.quality import PLACE, REGIMES, percent, right

COMMAND = "drivedistill bench TEACHER STUDENT --split test --out RUN/bench"
STAGES = {
    "image_decode": "decode pictures",
    "preprocess": "prepare",
    "vision": "vision",
    "encoder": "encoder",
    "first_token": "first word",
    "decode": "other words",
}


def latency(evidence: Evidence) -> Section:
    """Quality against latency."""
    title = "Quality against latency"
    if not evidence.benches:
        return Section("latency", title, missing("No latency was measured.", COMMAND))
    return Section("latency", title, join(_latency(evidence, bench) for bench in evidence.benches))


def _latency(evidence: Evidence, bench: Bench) -> Html:
    drawings = []
    for regime in REGIMES:
        points = []
        for place, model in enumerate(bench.models):
            row = evidence.row_of(model.model)
            share = right(row, regime, evidence.free_text) if row else None
            if share is not None:
                name = evidence.name_of(model.model)
                tail = model.latency_p99_ms
                at = model.latency_p50_ms
                points.append(charts.Point(at, share.value, name, place, share.low, share.high, tail))
        if points:
            said = "; ".join(f"{point.label}: {point.x:.1f} ms, {point.y:.1f} % right" for point in points)
            title = f"Right answers against latency, {PLACE[regime]}"
            drawing = charts.scatter(points, title=title, desc=said, x_label="latency, ms", y_label="right answers, %")
            drawings.append(figure(drawing, f"{PLACE[regime].capitalize()}."))
    note = ("Upper left is better. A point lies at the median latency, its bar to the right ends at the 99th percentile; the "
            "vertical bar is the 95 % interval of the share of right answers.")  # fmt: skip
    shown = [paragraph(note), charts.side_by_side(drawings)] if drawings else []
    return join([*shown, _stages(evidence, bench), _held(bench)])


def _stages(evidence: Evidence, bench: Bench) -> Html:
    """Where the time goes."""
    head = ["", "M parameters", *STAGES.values(), "median", "p99"]
    lines = []
    for model in bench.models:
        stages = [f"{model.stages_mean_ms.get(stage, 0):.1f}" for stage in STAGES]
        ends = [f"{model.latency_p50_ms:.1f}", f"{model.latency_p99_ms:.1f}"]
        lines.append([evidence.name_of(model.model), f"{model.params_total_1e6:.2f}", *stages, *ends])
    return table(
        head, lines, "Milliseconds of an answer, mean of each stage, and median and 99th percentile of the whole"
    )


def _held(bench: Bench) -> Html:
    machine, setting = bench.setting.machine, bench.setting
    where = f"{machine.device}, {bench.models[0].threads} thread{'s' if bench.models[0].threads > 1 else ''}"
    return el("p", f"{setting.questions} questions of {setting.scenes} scenes, one at a time, on {where}; models take turns.",
              class_="note")  # fmt: skip


def rsdr(evidence: Evidence) -> Section:
    """Right and in time, over the threshold."""
    title = "Right and in time"
    drawn = [bench for bench in evidence.benches if bench.curve.rsdr]
    if not drawn:
        return Section("rsdr", title, missing("No real-time success rate (RSDR) was measured.", COMMAND))
    intro = paragraph(
        "The real-time success rate (RSDR, CLKD's equation 9): the share of all answers that are right and not later "
        "than a threshold. A curve ends at the share that is right however late."
    )
    return Section("rsdr", title, join([intro, *(_curve(evidence, bench) for bench in drawn)]))


def _curve(evidence: Evidence, bench: Bench) -> Html:
    thresholds = bench.curve.thresholds_ms
    names = {model.name: evidence.name_of(model.model) for model in bench.models}
    series = {name: place for place, name in enumerate(bench.curve.rsdr)}
    curves = [
        charts.Curve(names.get(name, name), thresholds, [100 * value for value in values], series[name])
        for name, values in bench.curve.rsdr.items()
    ]
    said = "; ".join(f"{curve.name} ends at {curve.ys[-1]:.1f} %" for curve in curves)
    drawing = charts.lines(
        curves, title="RSDR over the threshold", desc=said, x_label="threshold, ms (logarithmic)",
        y_label="right and in time, %", log_x=True, steps=True, marks={float(ms): f"{ms} ms" for ms in THRESHOLDS_MS},
    )  # fmt: skip
    lines = [[names[model.name], *(_share(value) for value in _rsdr(model))] for model in bench.models]
    head = ["", *(f"within {ms} ms" for ms in THRESHOLDS_MS), "however late"]
    return join([
        charts.legend({curve.name: curve.series for curve in curves}),
        charts.side_by_side([figure(drawing, "Lines at 80 ms (CLKD) and 100 ms (the industry's budget).")]),
        table(head, lines, "Right and in time, % of all answers"),
    ])  # fmt: skip


def _rsdr(model: BenchModel) -> list[Value | None]:
    return [model.rsdr_80, model.rsdr_100, None if model.right is None else Value(value=model.right)]


def _share(found: Value | None) -> Html:
    if found is None or found.value is None:
        return none_cell()
    return number_cell(percent(found.value, found.low, found.high), ".1f")
