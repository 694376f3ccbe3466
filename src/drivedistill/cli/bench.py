"""`drivedistill bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from drivedistill.cli.inputs import (
    DataOption,
    EngineOption,
    FileOption,
    FormatOption,
    RegimeOption,
    ValSplit,
    chosen_questions,
    keep_quiet,
    ready_folder,
    refuse_remote,
)
from drivedistill.problems import InputError, Problem


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Runs, directories or hub ids; the others are compared with the first.", metavar="MODEL..."
        ),
    ],
    data: DataOption = None,
    format: FormatOption = None,
    file: FileOption = None,
    regime: RegimeOption = None,
    split: ValSplit = None,
    preset: Annotated[
        Literal["default", "drivekd"],
        typer.Option(help="Rules; drivekd: memory, tokens/s and first token as in Drive-KD."),
    ] = "default",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions, spread, always the same [50].")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Questions before the clock counts [3].")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Times that each question is asked [1].")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer [256].")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Precision of the weights [float32].")
    ] = None,
    engine: EngineOption = "eager",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor; default: torch's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md, rsdr.svg and the answers.")] = Path(
        "bench"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked; write nothing.")] = False,
) -> None:
    """Measure models side by side: latency, its stages, memory, and what is right in time.

    Example: drivedistill bench runs/teacher runs/student --split test --threads 1
    """
    from drivedistill.bench.report import bench as measure
    from drivedistill.bench.report import choose, text
    from drivedistill.progress import counted
    from drivedistill.runs import require_pictures
    from drivedistill.subject import refuse_missing

    refuse_remote("bench", models)
    given = {
        "limit": limit, "warmup": warmup, "rounds": rounds, "max_new_tokens": max_new_tokens, "dtype": dtype,
        "engine": engine,
    }  # fmt: skip
    rules, shown = _rules(preset, {name: value for name, value in given.items() if value is not None})
    _refuse_used(out)
    refuse_missing({f"model {number}": model for number, model in enumerate(models, start=1)})
    questions = chosen_questions(models[0], data, format, file, regime, split, default_split="val")
    samples = choose(questions.chosen, rules)
    require_pictures(samples)
    if dry_run:
        asked = f"{counted(len(models), 'model')} would be asked {counted(len(samples), 'question')}"
        typer.echo(f"{asked} (rules {shown}: {rules}) into {out}")
        return
    keep_quiet()
    _refuse_unknown(models)
    ready_folder(out)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    report = measure(models, samples, rules, out, preset=shown, say=lambda line: typer.echo(line, err=True))
    typer.echo(text(report))
    typer.echo(f"written: {out}", err=True)


def _rules(preset: str, given: dict[str, Any]) -> tuple[Any, str]:
    """The rules of a preset with what the command line says instead, and their name."""
    from dataclasses import replace

    from drivedistill.bench.contest import PRESETS

    rules = PRESETS[preset]
    changed = {name: value for name, value in given.items() if getattr(rules, name) != value}
    if preset == "drivekd" and "max_new_tokens" in changed:
        changed["min_new_tokens"] = changed["max_new_tokens"]  # the preset's answers all have the same length
    shown = preset if preset == "default" or not changed else f"{preset}, but other {', '.join(changed)}"
    return replace(rules, **changed), shown


def _refuse_used(out: Path) -> None:
    """An earlier bench stays as it is: its answers belong to its figures."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "choose another --out, or remove the folder"
        found = "one with files in it" if out.is_dir() else "a file"
        raise InputError(Problem(str(out), "", "an empty or new folder", found, remedy))


def _refuse_unknown(models: list[str]) -> None:
    """Every model is looked up before the first one is measured."""
    from drivedistill.subject import model_kind

    problems: list[Problem] = []
    for model in dict.fromkeys(models):
        try:
            model_kind(model)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
