"""`drivedistill study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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


def study(
    model: Annotated[str, typer.Argument(help="Run, directory or hub id of a teacher.", metavar="RUN")],
    data: DataOption = None,
    format: FormatOption = None,
    file: FileOption = None,
    regime: RegimeOption = None,
    split: TestSplit = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default study/SPLIT in the run.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once; all maps of all layers are kept.")] = 4,
    limit_per_set: LimitPerSet = None,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the words, before their margin.")] = 1.0,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Precision of the weights.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of the bootstrap over scenes.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Find out which layers of a teacher to imitate, and in what: Drive-KD's pre-study, and the lessons that follow from it.

    Example: drivedistill study OpenGVLab/InternVL3-8B-hf --data data/drivelm --limit-per-set 300 --out study
    """
    from drivedistill.progress import counted
    from drivedistill.runs import require_pictures

    refuse_remote("study", [model])
    questions = chosen_questions(
        model, data, format, file, regime, split, default_split="test", limit_per_set=limit_per_set
    )
    samples = questions.chosen
    require_pictures(samples)
    target = out or default_folder(model) / "study" / questions.name
    if dry_run:
        typer.echo(f"{counted(len(samples), 'question')} would be asked; results into {target}")
        return
    from drivedistill.data.images import PictureCache
    from drivedistill.records import write_json, write_text
    from drivedistill.study.advice import advise, as_json, words
    from drivedistill.study.curves import curves
    from drivedistill.study.figure import figure
    from drivedistill.study.observe import observe
    from drivedistill.study.table import report
    from drivedistill.subject import load_subject

    ready_folder(target)
    keep_quiet()
    subject = load_subject(model, PictureCache(512), dtype=dtype)
    found = curves(observe(subject, samples, batch_size=batch_size, temperature=temperature), seed)
    choices, said = advise(found), words(found)
    text = report(model, found, choices, said)
    settings = {"model": model, "temperature": temperature, "dtype": dtype}
    write_json(target / "study.json", settings | as_json(found, choices, said))
    write_text(target / "study.md", text)
    write_text(target / "study.svg", figure(found))
    typer.echo(text)
    typer.echo(f"all numbers: {target / 'study.json'}, figure: {target / 'study.svg'}")
