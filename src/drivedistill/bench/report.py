"""A bench from beginning to end: models and questions in, `bench.json`, `bench.md`, `rsdr.svg` and answers out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from drivedistill.bench.contest import WAYS, Contestant, Rules, enter, hold, short_names
from drivedistill.bench.figures import curves, figures, predictions, ratios
from drivedistill.bench.memory import Memory, allocated_memory, own_process_memory
from drivedistill.bench.rsdr_svg import rsdr_svg
from drivedistill.bench.table import drivekd_table, models_table, training_table
from drivedistill.bench.training import training_costs
from drivedistill.data.mixture import draw
from drivedistill.evaluate.realtime import CLIP
from drivedistill.machine import machine_facts
from drivedistill.problems import InputError, Problem
from drivedistill.progress import counted
from drivedistill.records import Sample, write_json, write_jsonl, write_text


def bench(
    paths: Sequence[str],
    samples: Sequence[Sample],
    rules: Rules,
    out: Path,
    *,
    preset: str = "default",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure models side by side and write what was found.

    Args:
        paths: Runs, directories or hub ids; the first one is what the others are compared with.
        samples: The questions, already chosen (see `choose`).
        rules: How the contest is held.
        out: A folder; made if need be.
        preset: Name of the rules, for the report.
        say: Told what is going on.

    Returns:
        What `bench.json` says.

    Raises:
        InputError: A model cannot be loaded, or a question is too long for one.
        RunError: The process that measures a model's memory was killed.
    """
    names = short_names(paths)
    on_gpu = torch.cuda.is_available()
    memories: dict[str, Memory] = {}
    for name, path in () if on_gpu else zip(names, paths, strict=True):
        say(f"memory of {name}, in a process of its own ...")
        memories[name] = own_process_memory(path, rules, samples, torch.get_num_threads())
    contestants = [enter(name, path, rules, samples) for name, path in zip(names, paths, strict=True)]
    asked = (len(contestants), "model"), (len(samples), "question"), (rules.rounds, "round"), (len(WAYS), "way")
    say(f"{', '.join(counted(*pair) for pair in asked)} ...")
    hold(contestants, samples, rules)
    for contestant in contestants if on_gpu else ():
        memories[contestant.name] = allocated_memory(contestant)
    answers = {contestant.name: predictions(contestant, samples) for contestant in contestants}
    report: dict[str, Any] = {
        "setting": _setting(rules, preset, samples),
        "models": [_row(one, contestants[0], samples, rules, memories[one.name]) for one in contestants],
        "curve": {} if rules.min_new_tokens else curves(answers),
        "training": training_costs(dict(zip(names, paths, strict=True))),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in answers.items():
        write_jsonl(out / f"{name}.jsonl", rows)
    if report["curve"]:
        write_text(out / "rsdr.svg", rsdr_svg(**report["curve"]))
    write_text(out / "bench.md", text(report))
    write_json(out / "bench.json", report)
    return report


def choose(samples: Sequence[Sample], rules: Rules) -> list[Sample]:
    """The questions of a bench: so many, always the same, spread over the set; of clips whole ones.

    Raises:
        InputError: No question has as many pictures as the rules want.
    """
    fit = [sample for sample in samples if rules.views in (None, len(sample.images))]
    if not fit:
        counts = ", ".join(map(str, sorted({len(sample.images) for sample in samples})))
        expected, found = f"questions with {rules.views} pictures", f"questions with {counts}"
        raise InputError(Problem("questions", "images", expected, found, "choose other questions, or no preset"))
    drawn = draw(fit, rules.limit, rules.seed)
    if not any(CLIP in sample.extra for sample in drawn):
        return drawn
    clips: dict[tuple[str, str], list[Sample]] = {}
    for sample in fit:
        clips.setdefault((sample.scene, str(sample.extra.get(CLIP, sample.id))), []).append(sample)
    chosen: dict[str, None] = {}
    for sample in drawn:
        members = [member.id for member in clips[sample.scene, str(sample.extra.get(CLIP, sample.id))]]
        if not chosen or rules.limit is None or len(chosen) + len(members) <= rules.limit:
            chosen |= dict.fromkeys(members)
    return [sample for sample in fit if sample.id in chosen]


def text(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    setting, rows = report["setting"], report["models"]
    parts = [
        "# Bench\n",
        wrapped(
            f"{counted(setting['questions'], 'question')} of {counted(setting['scenes'], 'scene')}, one at a time, greedy; "
            f"rules `{setting['preset']}`: {Rules(**setting['rules'])}. Models take turns question by question. "
            f"Measured {setting['measured']} on {setting['machine']['device']}, torch "
            f"{setting['machine']['versions']['torch']}, transformers {setting['machine']['versions']['transformers']}."
        ),
        "",
        models_table(rows),
        "",
        wrapped(_footnote(rows[0])),
    ]
    if "rsdr_80" in rows[0]:
        parts += ["", "![RSDR over the threshold](rsdr.svg)"]
    if setting["preset"].startswith("drivekd"):
        parts += ["\n## Drive-KD's efficiency columns\n", drivekd_table(rows)]
    if report["training"]:
        parts += ["\n## Training\n", training_table(report["training"])]
    return "\n".join([*parts, ""])


def _footnote(first: dict[str, Any]) -> str:
    rsdr = first.get("rsdr_80")
    return (
        f"Latency: from the pictures on disk to the last token. FPS: answered questions per second, batch 1. "
        f"Times as fast: than {first['name']}, total time of the same questions. [low, high]: 95 % bootstrap over scenes. "
        f"Peak memory: {first['memory_method']}."
        + (f" RSDR: {rsdr['implementation']}; n = {rsdr['n']}." if rsdr else "")
    )


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 120 columns; names of devices and metrics stay whole."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _row(
    contestant: Contestant, first: Contestant, samples: Sequence[Sample], rules: Rules, memory: Memory
) -> dict[str, Any]:
    row = figures(contestant, samples, rules, memory)
    return row if contestant is first else row | ratios(contestant, first, samples)


def _setting(rules: Rules, preset: str, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "preset": preset,
        "rules": asdict(rules),
        "questions": len(samples),
        "scenes": len({sample.scene for sample in samples}),
        "sets": sorted({f"{sample.dataset} {sample.split} ({sample.regime})" for sample in samples}),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
    }
