"""`drivedistill ablate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drivedistill.problems import InputError, Problem, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from drivedistill.ablate.card import Table
    from drivedistill.ablate.jobs import Ending
    from drivedistill.ablate.plan import PlannedRun


def ablate(
    table: Annotated[Path, typer.Argument(help="Table recipe; ready ones are in recipes/tables/.", metavar="TABLE")],
    out: Annotated[Path | None, typer.Option(help="Folder of the table and its runs; default runs/NAME.")] = None,
    rows: Annotated[str | None, typer.Option(help="Only these rows, e.g. student,clkd, and what they use.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time; they share the cores.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Start a table that is only listed (`run: false`).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="With --dry-run: the command lines too.")] = False,
) -> None:
    """Run a table: rows x seeds, scored and compared. What is done is kept; an interrupted call is repeated.

    Example: drivedistill ablate recipes/tables/clkd_table_2_world.yaml --dry-run
    """
    from drivedistill.ablate.card import load_table
    from drivedistill.ablate.findings import before_locking, other_plan
    from drivedistill.ablate.jobs import locked
    from drivedistill.ablate.plan import choose, plan

    card = load_table(table)
    folder = out or Path("runs") / card.name
    runs = plan(card, table, folder)
    names = None if rows is None else [name.strip() for name in rows.split(",")]
    chosen = runs if names is None else choose(runs, names, card.score)
    problems = before_locking(chosen, folder)
    if dry_run:
        problems += other_plan(card, chosen, folder)
        typer.echo(_plan_text(card, chosen, problems, commands=commands))
        return
    if not (card.run or force):
        remedy = "provide it and add --force; --dry-run shows the plan"
        raise InputError(Problem(str(table), "run", card.needs, "a table that is only listed (`run: false`)", remedy))
    if problems:
        raise InputError(problems)
    _require_scorers(card)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as descriptor:
        if problems := other_plan(card, chosen, folder):
            raise InputError(problems)
        endings = _run(card, chosen, folder, descriptor, jobs)
        _show(card, runs, endings, folder)
    failed = {name: ending.code for name, ending in endings.items() if ending.code and not ending.waited_for}
    if failed:
        advice = "Mend it, then repeat the call" if set(failed.values()) == {2} else "Repeat the call to try again"
        raise RunError(f"{', '.join(failed)} failed; their log.txt says why. {advice}")


def _run(card: Table, chosen: Sequence[PlannedRun], folder: Path, descriptor: int, jobs: int) -> Mapping[str, Ending]:
    """What is not done, in the folder whose lock is held."""
    from drivedistill.ablate.board import ProgressList, job_of
    from drivedistill.ablate.jobs import run_jobs
    from drivedistill.ablate.plan import commands, write_plan

    write_plan(card, chosen, folder)
    todo = [run for run in chosen if run.state(card.score) != "done"]
    waiting = [job_of(run, partial(commands, run, card.score)) for run in todo]
    with ProgressList(len(todo)) as board:
        return run_jobs(waiting, folder, descriptor, jobs, board)


def _plan_text(card: Table, runs: Sequence[PlannedRun], problems: Sequence[Problem], *, commands: bool) -> str:
    """A line for each run: order, state, needs and what its row sets; then what is in the way."""
    import shlex

    from drivedistill.ablate.plan import CLI
    from drivedistill.ablate.plan import commands as commands_of

    lines = [f"{card.name}: {len(runs)} runs"]
    if not card.run:
        lines.append(f"only listed; needs: {card.needs}")
    for number, run in enumerate(runs, start=1):
        state = run.state(card.score)
        after = f", after {', '.join(run.needs)}" if run.needs else ""
        changes = " ".join(card.row(run.row).set)
        lines.append(f"{number:>3}  {run.name} ({state}{after}){f': {changes}' if changes else ''}")
        for command in commands_of(run, card.score) if commands and state != "done" else ():
            lines.append(f"     {shlex.join(['drivedistill', *command[len(CLI) :]])}")
    if problems:
        lines += ["", *map(str, problems), f"{len(problems)} to mend before it can be run"]
    return "\n".join(lines)


def _require_scorers(card: Table) -> None:
    """Fail now, not after hours of training."""
    from drivedistill.evaluate.captions.java import find_java, scorers_folder

    scorers_folder()
    if card.score.tokenizer == "ptb":
        find_java()


def _show(card: Table, runs: Sequence[PlannedRun], endings: Mapping[str, Ending], folder: Path) -> None:
    """Write the table in three forms and print it."""
    from drivedistill.ablate.results import tabulate
    from drivedistill.ablate.table import write_table

    page = write_table(tabulate(card, runs, endings), folder)
    typer.echo(f"\n{page}\n{folder / 'table.md'}, table.csv, table.json")
