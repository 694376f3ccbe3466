"""`drivedistill data check`, `drivedistill data corrupt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from drivedistill.cli.inputs import Format, RegimeName, read_questions, ready_folder
from drivedistill.problems import InputError

data = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check data sets, take frames out of videos, corrupt pictures."
)


@data.command("check")
def check(
    root: Annotated[Path, typer.Argument(help="Data root, or a recipe whose mixture is checked.", metavar="ROOT")],
    format: Annotated[Format, typer.Option(help="Published format below ROOT.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of the format's files, e.g. train, challenge, Val.")] = "train",
    regime: Annotated[RegimeName, typer.Option(help="What the data stand for.")] = "regular",
    images: Annotated[Literal["none", "exist", "decode"], typer.Option(help="How pictures are checked.")] = "decode",
) -> None:
    """Count, and look for what would spoil a run; exit code 2 when something must be mended.

    Example: drivedistill data check data/drivelm --format drivelm
    """
    from drivedistill.data.check import check as look
    from drivedistill.data.check_report import format_report
    from drivedistill.data.mixture import load_mixture
    from drivedistill.recipe import load_recipe

    if root.suffix in (".yaml", ".yml"):
        splits = load_mixture(load_recipe(root).data.sources)
    else:
        splits = {file: read_questions(root, format, file, regime)}
    report = look(splits, images=images)
    typer.echo(format_report(report))
    if format == "clips":
        from drivedistill.data.clips import unlabelled

        names = unlabelled(root, file)
        typer.echo(f"Clips without a label in {file}: {len(names):,} {' '.join(names[:5])}".rstrip())
    if report.problems:
        raise InputError(report.problems)


@data.command("frames")
def frames(
    root: Annotated[Path, typer.Argument(help="Folder of clips.", metavar="ROOT")],
    file: Annotated[str, typer.Option(help="File of labels, e.g. labels for labels.jsonl or labels.csv.")] = "labels",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG files.")] = 95,
) -> None:
    """Write the labelled frames of videos beside them, as pictures; goes on where an interrupted call stopped.

    Example: drivedistill data frames data/drives --file labels
    """
    from drivedistill.data.clip_frames import extract_frames
    from drivedistill.progress import counted

    done = extract_frames(root, file, quality)
    found = f"{counted(done.written + done.there, 'frame')} of {counted(done.videos, 'video')}"
    typer.echo(f"{found}: {done.written:,} written, {done.there:,} there already; {done.bytes / 1e6:,.1f} MB in all")


@data.command("corrupt")
def corrupt(
    root: Annotated[Path, typer.Argument(help="Data root.", metavar="ROOT")],
    out: Annotated[Path, typer.Option(help="New folder for OUT/NAME/CAMERA/FILE and sheet.png.")],
    format: Annotated[Format, typer.Option(help="Published format below ROOT.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of the format's files, e.g. train, challenge, Val.")] = "train",
    corrupt: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:SEVERITY]", help="Again for more; without it all fifteen.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the pictures of the first so many frames.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 0,
) -> None:
    """Write corrupted pictures as files, to look at them or for another program; `predict --corrupt` needs none.

    Example: drivedistill data corrupt data/drivelm --corrupt fog:3 --corrupt rain --limit 1 --out fog-and-rain
    """
    from drivedistill.data.condition import condition_name
    from drivedistill.data.corruptions import CORRUPTIONS
    from drivedistill.data.corruptions.write import write_corrupted
    from drivedistill.progress import counted

    names = list(dict.fromkeys(condition_name(name, "--corrupt", also=()) for name in corrupt or CORRUPTIONS))
    samples = read_questions(root, format, file, "regular")
    chosen = [(name.split(":")[0], int(name.split(":")[1])) for name in names]
    ready_folder(out.parent)
    typer.echo(f"{counted(write_corrupted(samples, out, chosen, seed, limit), 'picture')} in {out}")
