"""`drivedistill report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drivedistill.cli.inputs import ready_file
from drivedistill.problems import InputError, Problem


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Runs, tables of runs, folders with bench.json, probe.json, experts.json.", metavar="RUN..."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file; default report.html in the first folder.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Questions in the gallery of answers.")] = 36,
    seed: Annotated[int, typer.Option(help="Of the choice of these questions.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what was found; write nothing.")] = False,
) -> None:
    """Write one offline HTML page about runs: what was made, how good and how fast it is, and real answers.

    Example: drivedistill report runs/teacher runs/student runs/bench --out report.html
    """
    from drivedistill.progress import counted
    from drivedistill.records import write_text
    from drivedistill.report.evidence import gather
    from drivedistill.report.page import page

    target = out or folders[0] / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(Problem("command line", "--out", "a file that ends in .html", str(target), "add .html"))
    found = gather(folders)
    if dry_run:
        parts = [(len(found.rows), "row"), (len(found.benches), "bench run"), (len(found.probes), "probe")]
        text = ", ".join(counted(*part) for part in parts)
        typer.echo(f"{text}, experts of {counted(len(found.experts), 'model')} would be reported in {target}")
        return
    ready_file(target)
    text = page(found, most=examples, seed=seed)
    write_text(target, text)
    typer.echo(f"{target} ({len(text.encode()) / 1e6:.1f} MB, opens without a network)")
