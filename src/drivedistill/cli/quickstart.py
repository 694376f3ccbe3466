"""`drivedistill quickstart`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from drivedistill.cli.inputs import ready_folder


def quickstart(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Fields of the students' recipe to change.", metavar="[key.sub=value]...")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of everything; new, empty, or an earlier quickstart.")] = Path(
        "quickstart"
    ),
    minutes: Annotated[float, typer.Option(min=3, help="About how long it may take; at least six.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the data and of the students.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, at most one per core.")] = 2,
    teacher: Annotated[
        Path | None, typer.Option(help="A run or a model's directory instead of the demo teacher.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier quickstart in this folder first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show stages and command lines; write nothing.")] = False,
) -> None:
    """From nothing to a report: a driving world, a demo teacher, CLKD's students, scores, speed, controls.

    Needs no data, no GPU, no network. What is done is kept; an interrupted call is repeated.

    Example: drivedistill quickstart --minutes 10
    """
    from drivedistill.quickstart.plan import Call
    from drivedistill.quickstart.run import describe
    from drivedistill.quickstart.run import quickstart as begin

    call = Call(out, minutes, seed, jobs, teacher, tuple(overrides or ()))
    if dry_run:
        typer.echo("\n".join(describe(call)))
        return
    ready_folder(out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of tiny models wait for one another most of the time
    report = begin(call, overwrite=overwrite, say=typer.echo)
    typer.echo(f"\n{_scores(call.table / 'table.md')}\n\nall of it: {call.table / 'table.md'}\nreport: {report}")


def _scores(page: Path) -> str:
    """The head of the table's page: scores and costs, without differences and notes."""
    return page.read_text("utf-8").partition("\n## Differences")[0].rstrip()
