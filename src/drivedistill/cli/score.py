"""`drivedistill score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drivedistill.cli.inputs import Format, read_questions, ready_file
from drivedistill.problems import InputError, Problem

if TYPE_CHECKING:
    from drivedistill.evaluate.groups import Facts
    from drivedistill.records import Prediction


def score(
    predictions: Annotated[
        list[Path], typer.Argument(help="JSONL, or DriveLM's output/submission.json.", metavar="FILE...")
    ],
    reference: Annotated[Path | None, typer.Option(help="Data root with the questions of a submission.")] = None,
    format: Annotated[Format, typer.Option(help="Format below --reference.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of its files.")] = "challenge",
    out: Annotated[Path | None, typer.Option(help="Result; default STEM.results.json beside the first file.")] = None,
    fail_under: Annotated[list[str] | None, typer.Option(help="metric=value, e.g. bleu_4=45 or corner.avg=20.")] = None,
    no_meteor: Annotated[bool, typer.Option("--no-meteor", help="Leave METEOR out (saves ten seconds).")] = False,
    tokenizer: Annotated[Literal["ptb", "approximate"], typer.Option(help="`approximate` needs no Java.")] = "ptb",
    facts: Annotated[list[Path] | None, typer.Option(help="JSONL of what is known about frames: kind, ...")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Field of --facts: its values are scored apart, too.")] = None,
    judge: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server that judges.")] = None,
    judge_model: Annotated[str, typer.Option(help="Model name sent to the judge.")] = "gpt-3.5-turbo",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the judge's key.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over scenes.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the predictions; write nothing.")] = False,
) -> None:
    """Score predictions as the papers do; exit code 3 when a gate fails.

    Example: drivedistill score runs/student/predictions/val-greedy.jsonl --fail-under regular.avg=40
    """
    from drivedistill.evaluate.calibration import curves
    from drivedistill.evaluate.groups import group_scores
    from drivedistill.evaluate.meta_table import as_json, format_meta, meta_tables
    from drivedistill.evaluate.score import score as rate
    from drivedistill.evaluate.score_table import format_groups, format_scores, gate
    from drivedistill.progress import counted
    from drivedistill.records import write_json

    rows = [row for path in predictions for row in _read(path, reference, format, file)]
    known = _facts(facts or [], by or [])
    if dry_run:
        typer.echo(f"{counted(len(rows), 'prediction')} would be scored")
        return
    who = None
    target = out or predictions[0].with_name(f"{predictions[0].stem}.results.json")
    ready_file(target)
    if judge:
        from drivedistill.evaluate.endpoint import Endpoint
        from drivedistill.evaluate.judge import Judge

        who = Judge(Endpoint(judge, judge_model, api_key_env), cache=target.with_suffix(".judge.jsonl"))
    parts = group_scores(rows, known, by or [], tokenizer=tokenizer, seed=seed)
    scores = [*rate(rows, judge=who, meteor=not no_meteor, tokenizer=tokenizer, seed=seed), *parts]
    write_json(target, [row.model_dump() for row in scores])
    typer.echo("\n\n".join(filter(None, [format_scores(scores), format_groups(scores)])))
    if tables := meta_tables(rows):
        typer.echo(f"\n{format_meta(tables)}")
        path = _beside(target, "meta_actions")
        write_json(path, [as_json(table) for table in tables])
        typer.echo(f"\nconfusion of meta-actions: {path}")
    typer.echo(f"\nall numbers: {target}")
    if bins := curves(rows):
        path = _beside(target, "calibration")
        write_json(path, bins)
        typer.echo(f"confidence against correctness: {path}")
    # After writing: scoring takes minutes, and a mistyped gate must not cost them.
    if failures := gate(scores, fail_under or []):
        typer.echo("\n" + "\n".join(failures), err=True)
        raise typer.Exit(3)


def _beside(target: Path, what: str) -> Path:
    """The file `STEM.WHAT.json` beside `STEM.results.json`."""
    return target.with_name(f"{target.name.removesuffix('.json').removesuffix('.results')}.{what}.json")


def _facts(paths: list[Path], by: list[str]) -> Facts:
    """What is known about the frames; nothing without --by."""
    from drivedistill.evaluate.groups import read_facts

    if bool(paths) != bool(by):
        found = "--by without --facts" if by else "--facts without --by"
        remedy = "name both: --facts truth.jsonl --by kind"
        raise InputError(Problem("command line", "--by", "facts and a field of them", found, remedy))
    return read_facts(paths, by)


def _read(path: Path, reference: Path | None, format: Format, file: str) -> list[Prediction]:
    """Predictions of a JSONL file, or of one of DriveLM's submission forms."""
    from drivedistill.evaluate.submission import read_submission
    from drivedistill.records import Prediction, read_jsonl

    if path.suffix == ".json":
        if reference is None:
            remedy = "add --reference DATA_ROOT (and --format, --file)"
            raise InputError(Problem(str(path), "", "the questions it answers", "no --reference", remedy))
        return read_submission(path, read_questions(reference, format, file, "regular"))
    rows = read_jsonl(path, Prediction)
    if not rows:
        raise InputError(Problem(str(path), "", "predictions", "an empty file", "run `drivedistill predict` again"))
    return rows
