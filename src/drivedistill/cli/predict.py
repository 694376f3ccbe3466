"""`drivedistill predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drivedistill.cli.inputs import Format, RegimeName, keep_quiet, own_split, read_questions, spread
from drivedistill.problems import InputError, Problem


def predict(
    model: Annotated[
        str, typer.Argument(help="Run, directory, hub id, or http(s) address of a server.", metavar="MODEL")
    ],
    data: Annotated[Path | None, typer.Option(help="Data root; default: the run's own mixture.")] = None,
    format: Annotated[Format, typer.Option(help="Published format below the root.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of the format's files.")] = "train",
    regime: Annotated[RegimeName, typer.Option(help="What the data stand for.")] = "regular",
    split: Annotated[str, typer.Option(help="Split of the run's own mixture (without --data).")] = "val",
    out: Annotated[Path | None, typer.Option(help="JSONL file; default in the run's predictions folder.")] = None,
    decode: Annotated[str, typer.Option(help="greedy, beam-N, or teacher_forced (EM-VLM4AD's way).")] = "greedy",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions.")] = None,
    limit_per_set: Annotated[
        int | None, typer.Option(min=1, help="So many questions of each data set and regime, spread, always the same.")
    ] = None,
    served_model: Annotated[str, typer.Option(help="Model name sent to a server.")] = "default",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Answer questions; goes on where an interrupted call stopped.

    Example: drivedistill predict runs/student --data data/drivelm --format drivelm
    """
    from drivedistill.evaluate.decoding import decoding
    from drivedistill.evaluate.endpoint import Endpoint, served_answerer
    from drivedistill.evaluate.predict import local_answerer, written_at
    from drivedistill.evaluate.predict import predict as answer
    from drivedistill.runs import require_pictures

    way = decoding(decode, max_new_tokens)
    samples = read_questions(data, format, file, regime) if data else own_split(model, split)
    samples = spread(samples, limit_per_set)[:limit]
    require_pictures(samples)
    served = model.startswith(("http://", "https://"))
    if served and decode != "greedy":
        remedy = "leave --decode away; a server decides itself, at temperature 0"
        raise InputError(Problem("command line", "--decode", "none for a server", repr(decode), remedy))
    name = "endpoint" if served else decode
    target = out or _default_predictions(model, f"{data.resolve().name}-{file}" if data else split, name)
    if dry_run:
        typer.echo(f"{len(samples)} questions would be answered ({name}) into {target}")
        return
    keep_quiet()
    since = None
    if served:
        shown = served_model
        endpoint = Endpoint(model, served_model, api_key_env, timeout_s=300)  # long answers, a long queue
        answerer = served_answerer(endpoint, max_new_tokens)
    else:
        shown, since = str(Path(model)), written_at(model)
        answerer = local_answerer(model, way, samples)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        count = answer(samples, answerer, target, model=shown, decode=name, batch_size=batch_size, since=since)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; answers so far are kept in {target}, run again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{count} new answers, {len(samples)} in all: {target}")


def _default_predictions(model: str, what: str, decode: str) -> Path:
    if not Path(model).is_dir():
        raise InputError(Problem(model, "", "a run to write into", "a hub id or a server", "add --out FILE.jsonl"))
    return Path(model) / "predictions" / f"{what}-{decode}.jsonl"
