"""`drivedistill experts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drivedistill.cli.inputs import (
    DataOption,
    FileOption,
    FormatOption,
    LimitPerSet,
    RegimeOption,
    TestSplit,
    chosen_questions,
    default_folder,
    keep_quiet,
    ready_folder,
    refuse_remote,
)


def experts(
    model: Annotated[str, typer.Argument(help="Run, directory or hub id of a model with experts.", metavar="RUN")],
    data: DataOption = None,
    format: FormatOption = None,
    file: FileOption = None,
    regime: RegimeOption = None,
    split: TestSplit = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default experts/SPLIT in the run.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    limit_per_set: LimitPerSet = None,
    draws: Annotated[int, typer.Option(min=2, help="Random routers of each kind to compare with.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over scenes.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Show which experts a model uses, and whether corner cases use more of them than random routers would.

    Example: drivedistill experts runs/clkd --limit-per-set 500
    """
    from drivedistill.progress import counted
    from drivedistill.runs import require_pictures

    refuse_remote("experts", [model])
    questions = chosen_questions(
        model, data, format, file, regime, split, default_split="test", limit_per_set=limit_per_set
    )
    samples = questions.chosen
    require_pictures(samples)
    target = out or default_folder(model) / "experts" / questions.name
    if dry_run:
        typer.echo(f"{counted(len(samples), 'question')} would be asked; results into {target}")
        return
    from drivedistill.data.images import PictureCache
    from drivedistill.experts.figure import figure
    from drivedistill.experts.observe import observe
    from drivedistill.experts.report import as_json, compare_regimes
    from drivedistill.experts.table import report
    from drivedistill.records import write_json, write_text
    from drivedistill.subject import load_subject

    ready_folder(target)
    keep_quiet()
    use = observe(load_subject(model, PictureCache(512)), samples, batch_size=batch_size, draws=draws)
    comparisons = compare_regimes(use, seed)
    text = report(model, comparisons)
    write_json(target / "experts.json", as_json(model, use, comparisons))
    write_text(target / "experts.md", text)
    write_text(target / "experts.svg", figure(comparisons))
    typer.echo(text)
    typer.echo(f"all numbers: {target / 'experts.json'}, figure: {target / 'experts.svg'}")
