"""`drivedistill predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from drivedistill.cli.inputs import (
    DataOption,
    EngineOption,
    FileOption,
    FormatOption,
    LimitPerSet,
    RegimeOption,
    ValSplit,
    chosen_questions,
    keep_quiet,
    mixture_of,
    ready_file,
    recipe_of,
    refuse_beside,
)
from drivedistill.problems import InputError, Problem


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Run, directory, hub id, http(s) address of a server, or prior:RECIPE for a learner without pictures.",
            metavar="MODEL",
        ),
    ],
    data: DataOption = None,
    format: FormatOption = None,
    file: FileOption = None,
    regime: RegimeOption = None,
    split: ValSplit = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file; default in the run's predictions folder.")] = None,
    decode: Annotated[str, typer.Option(help="greedy, beam-N, or teacher_forced (EM-VLM4AD's way).")] = "greedy",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    engine: EngineOption = "eager",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions.")] = None,
    limit_per_set: LimitPerSet = None,
    corrupt: Annotated[
        str | None,
        typer.Option(help="Corrupt the pictures: NAME or NAME:SEVERITY, e.g. fog:3; see docs/evaluation.md."),
    ] = None,
    control: Annotated[
        Literal["black", "none", "shuffled"] | None, typer.Option(help="Black, no, or another scene's pictures.")
    ] = None,
    served_model: Annotated[str, typer.Option(help="Model name sent to a server.")] = "default",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Answer questions; goes on where an interrupted call stopped.

    Example: drivedistill predict runs/student --data data/drivelm --format drivelm
    """
    from drivedistill.data.condition import show
    from drivedistill.evaluate.answering import local_answerer
    from drivedistill.evaluate.decoding import decoding
    from drivedistill.evaluate.endpoint import Endpoint, served_answerer
    from drivedistill.evaluate.predict import How, written_at
    from drivedistill.evaluate.predict import predict as answer
    from drivedistill.evaluate.text_only import prior_answerer
    from drivedistill.progress import counted
    from drivedistill.runs import require_pictures

    way = decoding(decode, max_new_tokens)
    prior = model.removeprefix("prior:") if model.startswith("prior:") else None
    if prior:
        recipe_of(prior)
        remedy = "leave it away: a prior sees no picture"
        refuse_beside({"--corrupt": corrupt, "--control": control}, model, remedy)
    name, everything, samples, train = chosen_questions(
        prior or model, data, format, file, regime, split, default_split="val", limit_per_set=limit_per_set
    )
    samples = samples[:limit]
    served = model.startswith(("http://", "https://"))
    if (served or prior) and decode != "greedy":
        why = "a prior looks its answer up" if prior else "a server decides itself, at temperature 0"
        raise InputError(Problem("command line", "--decode", f"none: {why}", repr(decode), "leave --decode away"))
    way_name = "endpoint" if served else "text_only" if prior else decode
    condition = _condition(corrupt, control)
    target = out or _default_predictions(model, f"{name}-{way_name}", condition)
    seen = show(everything, condition).only(samples)
    require_pictures(seen.samples)  # other scenes' pictures, where they are shuffled
    if dry_run:
        asked = counted(len(samples), "question")
        typer.echo(f"{asked} would be answered ({way_name}, {condition} pictures) into {target}")
        return
    ready_file(target)
    keep_quiet()
    if served:
        who, since = served_model, None
        endpoint = Endpoint(model, served_model, api_key_env, timeout_s=300)  # long answers, a long queue
        answerer = served_answerer(endpoint, max_new_tokens, change=seen.change, blind=seen.blind)
    elif prior:
        who, since = model, None
        answerer = prior_answerer(train or mixture_of(recipe_of(prior))["train"])
    else:
        who, since = str(Path(model)), written_at(model)
        answerer = local_answerer(model, way, seen.samples, change=seen.change, blind=seen.blind, engine=engine)
    how = How(who, way_name, condition)
    try:
        count = answer(
            seen.samples, answerer, target, how=how, batch_size=batch_size, since=since, limit=max_new_tokens
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; answers so far are kept in {target}, run again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{counted(count, 'new answer')}, {len(samples)} in all: {target}")


def _condition(corrupt: str | None, control: str | None) -> str:
    from drivedistill.data.condition import condition_name
    from drivedistill.records import CLEAN

    if corrupt and control:
        found = f"--corrupt {corrupt} and --control {control}"
        raise InputError(Problem("command line", "--corrupt", "one condition", found, "ask twice, once with each"))
    return condition_name(corrupt, "--corrupt", also=()) if corrupt else control or CLEAN


def _default_predictions(model: str, what: str, condition: str) -> Path:
    if not Path(model).is_dir():
        found = "a prior, which is no run" if model.startswith("prior:") else "a hub id or a server"
        raise InputError(Problem(model, "", "a run to write into, or --out", found, "add --out FILE.jsonl"))
    suffix = "" if condition == "clean" else f"-{condition.replace(':', '-')}"
    return Path(model) / "predictions" / f"{what}{suffix}.jsonl"
