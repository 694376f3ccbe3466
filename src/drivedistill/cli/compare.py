"""`drivedistill compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drivedistill.cli.inputs import ready_file
from drivedistill.problems import InputError, Problem

if TYPE_CHECKING:
    from drivedistill.evaluate.compare import Comparison
    from drivedistill.evaluate.same_questions import Answers


def compare(
    files: Annotated[list[Path] | None, typer.Argument(help="Predictions of A and of B.", metavar="[A B]")] = None,
    a: Annotated[
        list[Path] | None, typer.Option("--a", help="Predictions of A, one file per seed; repeatable.")
    ] = None,
    b: Annotated[
        list[Path] | None, typer.Option("--b", help="Predictions of B, one file per seed; repeatable.")
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Seeds of A and B belong together, in order.")] = False,
    common: Annotated[bool, typer.Option("--common", help="Only what all files answer; says what it omits.")] = False,
    columns: Annotated[str | None, typer.Option(help="Only these metrics, e.g. bleu_4,meteor,avg.")] = None,
    no_meteor: Annotated[bool, typer.Option("--no-meteor", help="Leave METEOR out (saves ten seconds).")] = False,
    tokenizer: Annotated[Literal["ptb", "approximate"], typer.Option(help="`approximate` needs no Java.")] = "ptb",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of scenes and runs.")] = 0,
    out: Annotated[Path | None, typer.Option(help="All numbers as JSON.")] = None,
) -> None:
    """Say whether A is better than B: differences of metrics with intervals, and a verdict.

    Example: drivedistill compare --a clkd-0.jsonl --a clkd-1.jsonl --b student-0.jsonl --b student-1.jsonl --paired
    """
    from drivedistill.evaluate.compare import compare as compared
    from drivedistill.evaluate.compare_table import IN_TABLE, as_json, format_comparisons
    from drivedistill.evaluate.metric import METRICS
    from drivedistill.evaluate.same_questions import only_one_side, runs_of
    from drivedistill.records import write_json

    names = None if columns is None else _metrics(columns)
    sides = _sides(files or [], a or [], b or [])
    answers = [runs_of(side) for side in _read(*sides)]
    if out is not None:
        ready_file(out)
    found = compared(*answers, common=common, paired=paired, meteor=not no_meteor, tokenizer=tokenizer, seed=seed)
    _refuse_empty(names or (), found)
    alone = only_one_side(*answers)
    if out is not None:
        write_json(out, as_json(found, alone, names or [*METRICS]))
    typer.echo(format_comparisons(found, alone, names or IN_TABLE))
    if out is not None:
        typer.echo(f"\nall numbers: {out}")


def _metrics(columns: str) -> list[str]:
    """The metrics that are named."""
    from drivedistill.evaluate.metric import METRICS, nearest_metrics

    names = [name.strip() for name in columns.split(",")]
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError(
            Problem("command line", "--columns", nearest_metrics(name), name, "correct the name") for name in unknown
        )
    return names


def _refuse_empty(names: Sequence[str], found: Sequence[Comparison]) -> None:
    """Refuse columns that no set has; their tables would be empty."""
    there = {name for one in found for name in (*(line.name for line in one.lines), *one.not_compared)}
    missing = [name for name in names if name not in there]
    if there and missing:
        expected = "metrics that are sums over these answers; percentiles, areas and judges' ratings are not compared"
        remedy = "leave them out; `drivedistill score` prints them where the answers have them"
        raise InputError(Problem("command line", "--columns", expected, ", ".join(missing), remedy))


def _sides(files: list[Path], a: list[Path], b: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files of A and of B; two files without a name are the first of each."""
    remedy = "write `compare A.jsonl B.jsonl`, or name more seeds with --a FILE and --b FILE"
    if len(files) not in (0, 2):
        found = f"{len(files)}: {', '.join(map(str, files))}"
        raise InputError(Problem("command line", "A B", "two files, or none and --a and --b", found, remedy))
    sides = [*files[:1], *a], [*files[1:], *b]
    for name, side in zip("AB", sides, strict=True):
        if not side:
            raise InputError(Problem("command line", name, "at least one file", "none", remedy))
        real = [path.resolve() for path in side]
        if repeated := [str(path) for place, path in enumerate(side) if real[place] in real[:place]]:
            expected = "every run of a side once: a copy is no other seed"
            found = f"twice {', '.join(repeated)}"
            raise InputError(Problem("command line", name, expected, found, "name each file once"))
    return sides


def _read(*sides: list[Path]) -> list[list[Answers]]:
    """The answers in the files; what is wrong with any of them is reported at once."""
    from drivedistill.evaluate.same_questions import Answers
    from drivedistill.records import Prediction, read_jsonl

    problems: list[Problem] = []
    found: list[list[Answers]] = []
    for side in sides:
        found.append([])
        for path in side:
            try:
                rows = read_jsonl(path, Prediction)
            except InputError as error:
                problems += error.problems
                continue
            if not rows:
                remedy = "run `drivedistill predict` again"
                problems.append(Problem(str(path), "", "predictions", "an empty file", remedy))
            found[-1].append(Answers(str(path), rows))
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return found
